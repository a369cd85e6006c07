// Stand-in for tflite-micro's header of this name.
#pragma once
#include <cstddef>
#include <cstdint>

#include "tensorflow/lite/micro/micro_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

#define TFLITE_SCHEMA_VERSION (3)

union TfLitePtrUnion {
  char* raw;
  const char* raw_const;
  int8_t* int8;
};
struct TfLiteTensor {
  TfLitePtrUnion data;
};

namespace tflite {

class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver& resolver, uint8_t* arena, size_t arena_size);
  ~MicroInterpreter();
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteTensor* input(size_t index);
  TfLiteTensor* output(size_t index);
  size_t arena_used_bytes() const { return used_; }

 private:
  void* Take(size_t size);
  const int8_t* Constant(const stand_in::Table& tensor) const;

  const Model* model_;
  const MicroOpResolver& resolver_;
  uint8_t* arena_;
  size_t arena_size_;
  size_t used_ = 0;
  TfLiteTensor* tensors_ = nullptr;
};

}  // namespace tflite
