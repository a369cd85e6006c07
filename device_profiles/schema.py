"""`DeviceProfile`: what a device is, what it may spend, and where each figure comes from."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from edgedeploy.evidence import Evidence


class Section(BaseModel):
    """A TOML table: frozen; an unknown key, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _safe_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name.endswith((".failed", ".unverified", ".toml")):
        raise ValueError(
            "a name becomes a folder: up to 64 of the letters A-Z a-z 0-9 . _ -, no dot first, "
            "and not ending in .failed, .unverified or .toml"
        )
    return name


#: One safe component of a path.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
Name = Annotated[str, AfterValidator(_safe_name)]


class Device(Section):
    """Who the device is and which backend serves it."""

    name: Name
    aliases: tuple[Name, ...] = ()
    vendor: str = ""
    soc: str = ""
    device_class: Literal["server", "desktop", "phone", "edge", "mcu"] = Field(alias="class")
    backend: str
    description: str = ""


class Hardware(Section):
    """What backends and the cost model need to know; a key that does not apply is left out."""

    # processors
    isa: tuple[str, ...] = ()
    arch: str = ""
    cores: PositiveInt | None = None
    threads: PositiveInt | None = None
    clock_mhz: PositiveFloat | None = None
    # memory
    bandwidth_gb_s: PositiveFloat | None = None
    ram_kb: PositiveFloat | None = None
    flash_kb: PositiveFloat | None = None
    # rates
    peak_int8_gops: PositiveFloat | None = None
    peak_fp16_gflops: PositiveFloat | None = None
    peak_fp32_gflops: PositiveFloat | None = None
    tdp_w: PositiveFloat | None = None
    # Snapdragon
    soc_id: PositiveInt | None = None
    hexagon_arch: PositiveInt | None = None
    # Apple
    deployment_target: str = ""
    # NVIDIA
    compute_capability: str = ""
    tensorrt_version: str = ""
    engine: Literal["", "tensorrt", "tensorrt-rtx"] = ""
    # microcontrollers
    cpu: str = ""
    fpu: bool | None = None
    accelerator: str = ""
    emulated_board: str = ""
    kernel_margin: float | None = Field(default=None, ge=0, le=2)


class Quantization(Section):
    """The backend's scheme and its options."""

    scheme: str = ""
    io_dtype: Literal["", "float32", "quantized"] = ""
    dynamic_batch: bool = False
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)


class Budget(Section):
    """One limit: at most ``max`` or at least ``min`` of a figure, and what proof it takes.

    With ``allow_unverified`` nobody need know whether it holds; a figure that is known to be outside still fails.
    """

    max: float | None = Field(default=None, ge=0)
    min: float | None = Field(default=None, ge=0)
    statistic: Literal["", "p50", "p90", "p99"] = ""
    required: bool = True
    allow_unverified: bool = False
    evidence: Evidence = Evidence.ESTIMATE

    @model_validator(mode="after")
    def _one_limit(self) -> Budget:
        if (self.max is None) == (self.min is None):
            raise ValueError("give exactly one of max and min")
        return self

    @property
    def limit(self) -> float:
        """The number, whichever side it bounds."""
        return self.max if self.max is not None else self.min  # type: ignore[return-value]


#: Every figure a budget may bound, with what it means.
BUDGET_KEYS: dict[str, str] = {
    "size_mb": "size of the shipped model file or folder, 1 MB = 1e6 bytes",
    "flash_kb": "flash that model and code take, 1 KB = 1024 bytes",
    "ram_kb": "peak RAM beside the weights, 1 KB = 1024 bytes",
    "memory_mb": "peak resident memory of the process that runs the model, 1 MB = 1e6 bytes",
    "load_ms": "time from file to first inference possible",
    "latency_ms": "time of one inference",
    "throughput_per_s": "inferences a second",
    "power_mw": "average power while inferring",
    "energy_mj": "energy of one inference",
}


class Quality(Section):
    """Default gates against the FP32 reference; one that does not apply to a model is listed as such.

    The decibels are of the centred output: the reference's variance over the inputs by the error's power, in the worst
    group of channels of one scale, in the worst slice of any axis, and in the worst sample (`edgedeploy.compare`).
    """

    max_accuracy_drop: float | None = Field(default=None, ge=0, le=1)
    min_agreement: float | None = Field(default=None, ge=0, le=1)
    min_sqnr_db: float | None = None
    min_channel_sqnr_db: float | None = None
    min_sample_sqnr_db: float | None = None
    min_identical: float | None = Field(default=None, ge=0, le=1)
    min_cosine: float | None = Field(default=None, ge=-1, le=1)
    max_clipped_fraction: float | None = Field(default=None, ge=0, le=1)


class LatencyCoefficients(Section):
    """Rates of one device in one precision; see `edgedeploy.targets.cost.latency`.

    ``band90`` is a factor: 90 of 100 measurements of unseen networks lie between value / band90 and value * band90.
    """

    fixed_us: float = Field(ge=0)
    io_us_per_kb: float = Field(default=0, ge=0)
    op_us: float = Field(default=0, ge=0)
    compute_gmacs_s: PositiveFloat
    memory_gb_s: PositiveFloat
    vector_gb_s: PositiveFloat
    depthwise_ratio: PositiveFloat = 1.0
    attention_ratio: PositiveFloat = 1.0
    band90: float = Field(ge=1, le=20)


class EnergyCoefficients(Section):
    """Energy of one inference: ``active_mw * latency + pj_per_mac * MACs + pj_per_byte * bytes moved``."""

    active_mw: float = Field(default=0, ge=0)
    pj_per_mac: float = Field(default=0, ge=0)
    pj_per_byte: float = Field(default=0, ge=0)
    idle_mw: float = Field(default=0, ge=0)
    band90: float = Field(ge=1, le=20)
    fitted_on: str


class Cost(Section):
    """Fitted cost-model coefficients, by precision ("float32", "float16", "int8", "int16")."""

    form: Literal["npu", "ane", "gpu", "cpu", "mcu"]
    status: Literal["fitted", "interpolated"]
    fitted_on: str
    fitted_by: str
    fitted_at: str
    validated: str = ""
    latency: dict[Literal["float32", "float16", "int8", "int16"], LatencyCoefficients] = Field(default_factory=dict)
    energy: EnergyCoefficients | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Cost:
        if not self.latency:
            raise ValueError("a cost section needs coefficients in at least one precision: [cost.latency.int8] …")
        return self


class DeviceProfile(Section):
    """One device. ``budget`` keys are those of `BUDGET_KEYS`."""

    extends: str = ""
    device: Device
    hardware: Hardware = Hardware()
    quantization: Quantization = Quantization()
    budget: dict[str, Budget] = Field(default_factory=dict)
    quality: Quality = Quality()
    cost: Cost | None = None
    sources: dict[str, str] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name users type."""
        return self.device.name

    @model_validator(mode="after")
    def _known_budgets(self) -> DeviceProfile:
        for key in self.budget:
            if key not in BUDGET_KEYS:
                raise ValueError(f"budget {key!r} is not known; choose from {', '.join(BUDGET_KEYS)}")
        return self
