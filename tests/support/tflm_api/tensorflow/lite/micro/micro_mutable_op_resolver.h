// What main.cc and op_resolver.h use of tflite-micro's interface, declared for a syntax check only.
#pragma once
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
#define TF_LITE_ENSURE_STATUS(a)              \
  do {                                        \
    const TfLiteStatus s = (a);               \
    if (s != kTfLiteOk) return s;             \
  } while (0)
namespace tflite {
template <unsigned int tOpCount>
class MicroMutableOpResolver {
 public:
  TfLiteStatus AddConv2D();
};
}  // namespace tflite
