"""Which integer arithmetic a profile gets: it follows from the instruction set, unless the profile names a scheme."""

from __future__ import annotations

from edgedeploy.calibration.scheme import Scheme
from edgedeploy.calibration.schemes import ONNXRUNTIME_ARM, ONNXRUNTIME_X86, ONNXRUNTIME_X86_REDUCED
from edgedeploy.device_profiles.machine import IntegerPath, profile_machine
from edgedeploy.device_profiles.schema import DeviceProfile
from edgedeploy.errors import InputError

#: onnxruntime.ai/docs/performance/model-optimizations/quantization.html: U8S8 where VNNI sums in 32 bits, reduced
#: range where AVX2 sums pairs in 16, S8S8 on ARM.
BY_INTEGER_PATH: dict[IntegerPath, Scheme] = {
    IntegerPath.VNNI: ONNXRUNTIME_X86,
    IntegerPath.PAIRWISE: ONNXRUNTIME_X86_REDUCED,
    IntegerPath.DOT_PRODUCT: ONNXRUNTIME_ARM,
    IntegerPath.WIDENING: ONNXRUNTIME_ARM,
}


def scheme_for(profile: DeviceProfile) -> Scheme:
    """Return the scheme of a profile.

    Raises:
        InputError: the profile names a scheme that ONNX Runtime does not have, or one that its CPU would saturate.
    """
    path = profile_machine(profile).integer_path
    named = profile.quantization.scheme
    if not named:
        return BY_INTEGER_PATH[path]
    choices = {scheme.name: scheme for scheme in BY_INTEGER_PATH.values()}
    if named not in choices:
        raise InputError(
            f"Profile {profile.name}: ONNX Runtime has no quantization scheme {named!r}.",
            remedy=f"Choose one of: {', '.join(sorted(choices))}; or leave it out to follow the CPU.",
        )
    if path is IntegerPath.PAIRWISE and not choices[named].weight.reduced:
        raise InputError(
            f"Profile {profile.name}: scheme {named!r} saturates on a CPU without VNNI.",
            found=f"hardware.isa = {sorted(profile_machine(profile).features)}",
            remedy=f"Use {ONNXRUNTIME_X86_REDUCED.name}; or add avx512_vnni or avx_vnni to hardware.isa.",
        )
    return choices[named]
