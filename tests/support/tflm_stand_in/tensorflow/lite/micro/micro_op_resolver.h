// Stand-in for tflite-micro's header of this name.
#pragma once

enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };

#define TF_LITE_ENSURE_STATUS(a)              \
  do {                                        \
    const TfLiteStatus s = (a);               \
    if (s != kTfLiteOk) return s;             \
  } while (0)

namespace tflite {

class MicroOpResolver {
 public:
  virtual unsigned int registered() const = 0;

 protected:
  ~MicroOpResolver() = default;
};

}  // namespace tflite
