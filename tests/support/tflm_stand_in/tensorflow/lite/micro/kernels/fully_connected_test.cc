#error "tflite-micro's own tests are no part of the library"
