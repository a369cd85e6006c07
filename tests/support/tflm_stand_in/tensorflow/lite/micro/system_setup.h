// Stand-in for tflite-micro's header of this name.
#pragma once
namespace tflite {
void InitializeTarget();
}
