"""Networks of the AI Hub table that are built by hand or by configuration, in families of their own.

``MORE`` maps the wheel's name (``model:component`` where a model is split) to (architecture family, builder, input
shapes). Parameter counts agree with the published ones within 3 %, but for: DDRNet and PIDNet, whose published counts
hold training heads (their published file sizes agree); FaceAttribNet, built like the definition in the wheel, whose
published count is another version's; RangeNet++ and PointNet, whose counts are in their papers alone.
"""

from __future__ import annotations

from functools import partial

import cost_model_dense as dense
import cost_model_dual as dual
import cost_model_faces as faces
import cost_model_others as others
import cost_model_people as people
import cost_model_restore as restore
import cost_model_transformers as transformers
import cost_model_yolo as yolo
import cost_model_yolo_others as yolo_others

_VGA, _640, _CITY, _LOW = (1, 3, 480, 640), (1, 3, 640, 640), (1, 3, 1024, 2048), (1, 3, 512, 1024)
_128, _224, _256, _480, _512 = ((1, 3, size, size) for size in (128, 224, 256, 480, 512))


def _rrdb():
    from cost_model_networks import _Rrdb

    return _Rrdb()


MORE = {
    # one-stage detectors
    "yolov4": ("yolo", yolo_others.Yolo4Tiny, ((1, 3, 416, 416),)),
    "yolov7": ("yolo", yolo_others.yolo7_tiny, (_640,)),
    "yolov8_det": ("yolo", yolo.yolo8, (_640,)),
    "yolov8_seg": ("yolo", partial(yolo.yolo8, extra=32, proto=True), (_640,)),
    "yolov8_obb": ("yolo", partial(yolo.yolo8, classes=15, extra=1), (_640,)),
    "lpdm": ("yolo", partial(yolo.yolo8, classes=51), (_640,)),
    "fastsam_s": ("yolo", partial(yolo.yolo8, "s", 1, extra=32, proto=True, best=False), (_640,)),
    "fastsam_x": ("yolo", partial(yolo.yolo8, "x", 1, extra=32, proto=True, best=False), (_640,)),
    "yolov10_det": ("yolo", yolo.yolo10, (_640,)),
    "yolov11_det": ("yolo", yolo.yolo11, (_640,)),
    "yolov11_seg": ("yolo", partial(yolo.yolo11, extra=32, proto=64), (_640,)),
    "yolov11_pose": ("yolo", partial(yolo.yolo11, 1, extra=51), (_640,)),
    "yolox": ("yolo", yolo_others.YoloX, (_640,)),
    "deepbox:yolo_2d_detection": ("yolo", others.Yolo3, ((1, 3, 416, 416),)),
    "gear_guard_net": ("gearguard", faces.GearGuard, ((1, 3, 320, 192),)),
    "resnet34_ssd1200": ("ssd", others.Ssd, ((1, 3, 1200, 1200),)),
    # faces and people
    "face_det_lite": ("centredet", partial(faces.CentreDetector, foot=False), ((1, 1, 480, 640),)),
    "foot_track_net": ("centredet", partial(faces.CentreDetector, foot=True), (_VGA,)),
    "face_attrib_net": ("faceattrib", faces.FaceAttributes, (_128,)),
    "facemap_3dmm": ("resnet", faces.facemap, (_128,)),
    "posenet_mobilenet": ("mobilenet", faces.PoseNet, ((1, 3, 513, 257),)),
    "cavaface": ("iresnet", people.IrSe, ((1, 3, 112, 112),)),
    "osnet": ("osnet", people.osnet, ((1, 3, 256, 128),)),
    "mediapipe_selfie": ("selfie", people.Selfie, (_256,)),
    "mobile_facenet": ("mobilefacenet", people.MobileFace, ((1, 3, 112, 112), (1, 3, 112, 112))),
    "mediapipe_face:face_detector": ("blaze", others.BlazeFace, (_256,)),
    "mediapipe_face:face_landmark_detector": ("blaze", others.FaceMesh, ((1, 3, 192, 192),)),
    "hrnet_pose": ("hrnet", partial(dense.HRNet, 32, 17, joined=False, mode="nearest"), ((1, 3, 256, 192),)),
    "hrnet_face": ("hrnet", partial(dense.HRNet, 18, 29, joined=True, mode="bilinear"), (_256,)),
    # segmentation and depth
    "ffnet_40s": ("ffnet", partial(dense.ffnet, (4, 5, 6, 4)), (_CITY,)),
    "ffnet_54s": ("ffnet", partial(dense.ffnet, (5, 8, 8, 5)), (_CITY,)),
    "ffnet_78s": ("ffnet", partial(dense.ffnet, (6, 12, 12, 8)), (_CITY,)),
    "ffnet_78s_lowres": ("ffnet", partial(dense.ffnet, (6, 12, 12, 8), head="C", first=1), (_LOW,)),
    "ffnet_122ns_lowres": ("ffnet", dense.ffnet_narrow, (_LOW,)),
    "deeplabv3_plus_mobilenet": ("deeplab", dense.DeepLabMobile, ((1, 3, 513, 513),)),
    "pspnet": ("pspnet", dense.PspNet, ((1, 3, 473, 473),)),
    "u2net_segmentation": ("u2net", dense.U2Net, ((1, 3, 320, 320),)),
    "midas": ("midas", dense.Midas, (_256,)),
    "ddrnet23_slim": ("ddrnet", dual.DDRNet, (_CITY,)),
    "pidnet": ("ddrnet", dual.PIDNet, (_CITY,)),
    "easyocr:detector": ("craft", others.Craft, ((1, 3, 608, 800),)),
    "rangenet_plus_plus": ("rangenet", others.RangeNet, ((1, 5, 64, 2048),)),
    # restoration
    "nafnet_deblur": ("nafnet", partial(restore.NafNet, (1, 1, 1, 28), 1, (1, 1, 1, 1)), ((1, 3, 360, 640),)),
    "nafnet_denoise": ("nafnet", partial(restore.NafNet, (2, 2, 4, 8), 12, (2, 2, 2, 2)), (_256,)),
    "sesr_m5": ("superres", restore.Sesr, (_128,)),
    "xlsr": ("superres", restore.Xlsr, (_128,)),
    "real_esrgan_x4plus": ("rrdb", _rrdb, (_128,)),
    "aotgan": ("aotgan", restore.AotGan, (_512, (1, 1, 512, 512))),
    "lama_dilated": ("lama", restore.Lama, (_512, (1, 1, 512, 512))),
    # the rest
    "deepbox:vgg_3d_detection": ("vgg", others.DeepBox, (_224,)),
    "pointnet": ("pointnet", others.PointNet, ((1, 3, 1024),)),
    "openai_clip": ("clip", transformers.clip, (_224, (1, 77, "ids"))),
    "siglip2:image_encoder": ("clip", transformers.siglip_image, (_224,)),
    "siglip2:text_encoder": ("clip", transformers.siglip_text, ((1, 64, "ids"),)),
    "owl_vit": ("clip", transformers.owl_vit, ((1, 16, "ids"), (1, 3, 768, 768))),
    "trocr:encoder": ("vit", transformers.trocr_encoder, ((1, 3, 384, 384),)),
    "depth_anything_v2": ("depth_anything", transformers.depth_anything_v2, ((1, 3, 518, 518),)),
    "nomic_embed_text": ("bert", transformers.nomic, ((1, 128, "ids"),)),
    "detr_resnet50": ("detr", transformers.detr, (_480,)),
    "detr_resnet50_dc5": ("detr", partial(transformers.detr, 50, dilated=True), (_480,)),
    "detr_resnet101": ("detr", partial(transformers.detr, 101), (_480,)),
    "detr_resnet101_dc5": ("detr", partial(transformers.detr, 101, dilated=True), (_480,)),
}
