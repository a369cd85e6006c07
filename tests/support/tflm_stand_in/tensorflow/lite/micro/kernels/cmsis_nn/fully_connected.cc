// Takes the place of the kernel of this name where the tree holds CMSIS-NN, like tflite-micro's own; four steps at once.
#include "Include/arm_nnfunctions.h"
#include "tensorflow/lite/micro/kernels/fully_connected.h"
#ifndef CMSIS_NN
#error "tflite-micro's Makefile defines CMSIS_NN for these kernels"
#endif
namespace stand_in {
int32_t Dot(const int8_t* input, int32_t input_zero_point, const int8_t* weights, int count) {
  int32_t sum = 0;
  int i = 0;
  for (; i + 4 <= count; i += 4) sum += arm_stand_in_dot4(input + i, input_zero_point, weights + i);
  for (; i < count; ++i) sum += (input[i] - input_zero_point) * weights[i];
  return sum;
}
}  // namespace stand_in
