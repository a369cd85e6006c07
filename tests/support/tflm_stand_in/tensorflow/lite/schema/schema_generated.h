// Stand-in: the root of a .tflite. Field numbers are those of TensorFlow Lite's public schema.
#pragma once
#include <cstdint>
#include <cstring>

namespace stand_in {

template <typename T>
T Read(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// A flatbuffers table: fields by number, nullptr where one is absent.
struct Table {
  const uint8_t* at;
  const uint8_t* Field(int number) const {
    const uint8_t* offsets = at - Read<int32_t>(at);
    if (4 + 2 * number >= Read<uint16_t>(offsets)) return nullptr;
    const uint16_t offset = Read<uint16_t>(offsets + 4 + 2 * number);
    return offset == 0 ? nullptr : at + offset;
  }
  template <typename T>
  T Value(int number, T otherwise) const {
    const uint8_t* field = Field(number);
    return field == nullptr ? otherwise : Read<T>(field);
  }
  Table Child(int number) const {
    const uint8_t* field = Field(number);
    return {field + Read<uint32_t>(field)};
  }
};

struct Vector {
  const uint8_t* at = nullptr;
  Vector(const Table& table, int number) {
    const uint8_t* field = table.Field(number);
    if (field != nullptr) at = field + Read<uint32_t>(field);
  }
  uint32_t size() const { return at == nullptr ? 0 : Read<uint32_t>(at); }
  const uint8_t* data() const { return at + 4; }
  template <typename T>
  T Value(uint32_t index) const {
    return Read<T>(data() + index * sizeof(T));
  }
  Table Child(uint32_t index) const {
    const uint8_t* field = data() + 4 * index;
    return {field + Read<uint32_t>(field)};
  }
};

}  // namespace stand_in

namespace tflite {

struct Model : stand_in::Table {
  uint32_t version() const { return Value<uint32_t>(0, 0); }
};

const Model* GetModel(const void* buffer);

}  // namespace tflite
