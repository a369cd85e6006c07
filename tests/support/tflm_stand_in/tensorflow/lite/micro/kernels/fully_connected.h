#pragma once
#include <cstdint>
namespace stand_in {
// Sum of (input - input_zero_point) * weight.
int32_t Dot(const int8_t* input, int32_t input_zero_point, const int8_t* weights, int count);
}  // namespace stand_in
