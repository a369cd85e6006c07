// Stand-in for tflite-micro's header of this name: every Add method that the real class has, and how often they were called.
#pragma once
#include "tensorflow/lite/micro/micro_op_resolver.h"

// clang-format off
#define STAND_IN_OPERATORS(X) \
  X(Abs) X(Add) X(AddN) X(ArgMax) X(ArgMin) X(AssignVariable) X(AveragePool2D) X(BatchMatMul) X(BatchToSpaceNd) \
  X(BroadcastArgs) X(BroadcastTo) X(CallOnce) X(Cast) X(Ceil) X(CircularBuffer) X(Concatenation) X(Conv2D) X(Cos) \
  X(CumSum) X(DepthToSpace) X(DepthwiseConv2D) X(Dequantize) X(DetectionPostprocess) X(Div) X(Elu) X(EmbeddingLookup) \
  X(Equal) X(EthosU) X(Exp) X(ExpandDims) X(Fill) X(Floor) X(FloorDiv) X(FloorMod) X(FullyConnected) X(Gather) \
  X(GatherNd) X(Greater) X(GreaterEqual) X(HardSwish) X(If) X(L2Normalization) X(L2Pool2D) X(LeakyRelu) X(Less) \
  X(LessEqual) X(Log) X(LogSoftmax) X(LogicalAnd) X(LogicalNot) X(LogicalOr) X(Logistic) X(MaxPool2D) X(Maximum) \
  X(Mean) X(Minimum) X(MirrorPad) X(Mul) X(Neg) X(NotEqual) X(Pack) X(Pad) X(PadV2) X(Prelu) X(Quantize) \
  X(ReadVariable) X(ReduceMax) X(Relu) X(Relu6) X(Reshape) X(ResizeBilinear) X(ResizeNearestNeighbor) X(Round) \
  X(Rsqrt) X(SelectV2) X(Shape) X(Sin) X(Slice) X(Softmax) X(SpaceToBatchNd) X(SpaceToDepth) X(Split) X(SplitV) \
  X(Sqrt) X(Square) X(SquaredDifference) X(Squeeze) X(StridedSlice) X(Sub) X(Sum) X(Svdf) X(Tanh) X(Transpose) \
  X(TransposeConv) X(UnidirectionalSequenceLSTM) X(Unpack) X(VarHandle) X(While) X(ZerosLike)
// clang-format on

namespace tflite {

template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
 public:
  explicit MicroMutableOpResolver() {}
#define STAND_IN_ADD(Name) \
  TfLiteStatus Add##Name() { return ++registered_ <= tOpCount ? kTfLiteOk : kTfLiteError; }
  STAND_IN_OPERATORS(STAND_IN_ADD)
#undef STAND_IN_ADD
  unsigned int registered() const override { return registered_; }

 private:
  unsigned int registered_ = 0;
};

}  // namespace tflite
