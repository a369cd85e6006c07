// Declared for a syntax check only.
#pragma once
namespace tflite {
void InitializeTarget();
}
