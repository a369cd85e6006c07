"""TensorFlow Lite Micro: int8 flatbuffers and the firmware sources around them."""
