// y = (max(x, 0) - mean) scale, with the mean and the inverse standard deviation of max(x, 0) for a standard normal x: 1 / sqrt(2 pi) and
// 1 / sqrt(1/2 - 1 / (2 pi)). Backward: dx = dy scale where x > 0.
#include "block.cuh"

#define NORMALIZED_RELU_MEAN 0.398942280401432677f
#define NORMALIZED_RELU_SCALE 1.712858550449663f

__device__ element normalized_relu_forward(element x) {
    return ((x <= 0.0f ? 0.0f : x) - NORMALIZED_RELU_MEAN) * NORMALIZED_RELU_SCALE;
}
KERNEL(normalized_relu_forward, f32, bf16)

__device__ element normalized_relu_backward(element x, element dy) { return x > 0.0f ? dy * NORMALIZED_RELU_SCALE : 0.0f; }
KERNEL(normalized_relu_backward, f32, bf16)
