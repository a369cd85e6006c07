#include "tensorflow/lite/micro/kernels/fully_connected.h"
namespace stand_in {
int32_t Dot(const int8_t* input, int32_t input_zero_point, const int8_t* weights, int count) {
  int32_t sum = 0;
  for (int i = 0; i < count; ++i) sum += (input[i] - input_zero_point) * weights[i];
  return sum;
}
}  // namespace stand_in
