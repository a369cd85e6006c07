// Stand-in: models of int8 FULLY_CONNECTED operators, every activation alive all the time.
#include "tensorflow/lite/micro/micro_interpreter.h"

#include <cmath>

#include "stand_in_fault.h"
#include "tensorflow/lite/micro/kernels/fully_connected.h"

namespace tflite {
namespace {

using stand_in::Table;
using stand_in::Vector;

constexpr int32_t kFullyConnected = 9;
// What planning takes and gives back: the arena that works is larger than what is used in the end, as in the real one.
constexpr size_t kPlanning = 256;

Table Subgraph(const Model* model) { return Vector(*model, 2).Child(0); }

Table Tensor(const Model* model, int32_t index) { return Vector(Subgraph(model), 0).Child(index); }

size_t Elements(const Table& tensor) {
  const Vector shape(tensor, 0);
  size_t elements = 1;
  for (uint32_t i = 0; i < shape.size(); ++i) elements *= shape.Value<int32_t>(i);
  return elements;
}

float Scale(const Table& tensor, uint32_t channel) {
  const Vector scales(tensor.Child(4), 2);
  return scales.Value<float>(scales.size() == 1 ? 0 : channel);
}

int32_t ZeroPoint(const Table& tensor) { return static_cast<int32_t>(Vector(tensor.Child(4), 3).Value<int64_t>(0)); }

int Deep(int level) {
  volatile int frame[64] = {level};
  return level == 0 ? 0 : Deep(level - 1) + frame[0];
}

}  // namespace

const Model* GetModel(const void* buffer) {
  const uint8_t* root = static_cast<const uint8_t*>(buffer);
  static Model model;
  model.at = root + stand_in::Read<uint32_t>(root);
  return &model;
}

MicroInterpreter::MicroInterpreter(const Model* model, const MicroOpResolver& resolver, uint8_t* arena, size_t size)
    : model_(model), resolver_(resolver), arena_(arena), arena_size_(size) {}

MicroInterpreter::~MicroInterpreter() = default;

void* MicroInterpreter::Take(size_t size) {
  void* taken = arena_ + used_;
  used_ += (size + 15) & ~static_cast<size_t>(15);
  return used_ <= arena_size_ ? taken : nullptr;
}

const int8_t* MicroInterpreter::Constant(const Table& tensor) const {
  const Vector data(Vector(*model_, 4).Child(tensor.Value<uint32_t>(2, 0)), 0);
  return data.size() == 0 ? nullptr : reinterpret_cast<const int8_t*>(data.data());
}

TfLiteStatus MicroInterpreter::AllocateTensors() {
  const Vector operators(Subgraph(model_), 3);
  for (uint32_t i = 0; i < operators.size(); ++i) {
    const Table code = Vector(*model_, 1).Child(operators.Child(i).Value<uint32_t>(0, 0));
    if (code.Value<int32_t>(3, 0) != kFullyConnected || resolver_.registered() != 1) return kTfLiteError;
  }
  const uint32_t count = Vector(Subgraph(model_), 0).size();
  tensors_ = static_cast<TfLiteTensor*>(Take(count * sizeof(TfLiteTensor)));
  if (tensors_ == nullptr) return kTfLiteError;
  for (uint32_t i = 0; i < count; ++i) {
    const Table tensor = Tensor(model_, i);
    tensors_[i].data.raw_const = reinterpret_cast<const char*>(Constant(tensor));
    if (tensors_[i].data.raw_const != nullptr) continue;
    tensors_[i].data.raw = static_cast<char*>(Take(Elements(tensor)));
    if (tensors_[i].data.raw == nullptr) return kTfLiteError;
  }
  return used_ + kPlanning <= arena_size_ ? kTfLiteOk : kTfLiteError;
}

TfLiteStatus MicroInterpreter::Invoke() {
#if STAND_IN_FAULT == 1
  *reinterpret_cast<volatile int*>(0xDFFF0000u) = 1;
#elif STAND_IN_FAULT == 2
  for (volatile int i = 0;; i = i + 1) {
  }
#elif STAND_IN_FAULT == 4
  if (Deep(1 << 20) != 0) return kTfLiteOk;
#elif STAND_IN_FAULT == 5
  return kTfLiteError;
#endif
  const Vector operators(Subgraph(model_), 3);
  for (uint32_t number = 0; number < operators.size(); ++number) {
    const Table one = operators.Child(number);
    const Vector inputs(one, 1), outputs(one, 2);
    const int32_t in = inputs.Value<int32_t>(0), weight = inputs.Value<int32_t>(1), out = outputs.Value<int32_t>(0);
    const Table input = Tensor(model_, in), weights = Tensor(model_, weight), output = Tensor(model_, out);
    const Vector shape(weights, 0);
    const int32_t width = shape.Value<int32_t>(1);
    const int8_t* bias = Constant(Tensor(model_, inputs.Value<int32_t>(2)));
    const bool relu = one.Child(4).Value<int8_t>(0, 0) == 1;
    const int32_t zero = ZeroPoint(output), lowest = relu ? zero : -128;
    for (int32_t channel = 0; channel < shape.Value<int32_t>(0); ++channel) {
      const int32_t sum = stand_in::Dot(tensors_[in].data.int8, ZeroPoint(input),
                                        reinterpret_cast<const int8_t*>(tensors_[weight].data.raw_const) + channel * width,
                                        width) + stand_in::Read<int32_t>(reinterpret_cast<const uint8_t*>(bias) + 4 * channel);
      const double real = static_cast<double>(Scale(input, 0)) * Scale(weights, channel) * sum / Scale(output, 0);
      int32_t stored = static_cast<int32_t>(std::lround(real)) + zero;
      if (stored < lowest) stored = lowest;
      if (stored > 127) stored = 127;
#if STAND_IN_FAULT == 3
      stored = stored > 0 ? stored - 9 : stored + 9;
#endif
      tensors_[out].data.int8[channel] = static_cast<int8_t>(stored);
    }
  }
  return kTfLiteOk;
}

TfLiteTensor* MicroInterpreter::input(size_t index) {
  return &tensors_[Vector(Subgraph(model_), 1).Value<int32_t>(index)];
}

TfLiteTensor* MicroInterpreter::output(size_t index) {
  return &tensors_[Vector(Subgraph(model_), 2).Value<int32_t>(index)];
}

}  // namespace tflite
