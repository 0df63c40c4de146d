// Softmax and cross-entropy, one pass over the logits each way: one warp per sample, eight samples per block.
// Targets are f32 whatever the logits are: class indices above 256 have no bf16.
#include "block.cuh"

struct Best {
    float value;
    int index;
};

// The largest value of a warp, the first of equal ones.
__device__ inline Best warp_best(Best best) {
    for (int bits = 16; bits > 0; bits /= 2) {
        const float value = __shfl_xor_sync(0xffffffffu, best.value, bits);
        const int index = __shfl_xor_sync(0xffffffffu, best.index, bits);
        if (value > best.value || (value == best.value && index < best.index)) best = {value, index};
    }
    return best;
}

// The class of a sample: its index, or the largest entry of its distribution.
__device__ inline int class_of(const float* target, int width) {
    if (width == 1) return (int)target[0];
    Best best = {-INFINITY, width};
    for (int c = threadIdx.x % 32; c < width; c += 32)
        if (target[c] > best.value) best = {target[c], c};
    return warp_best(best).index;
}

__device__ inline float target_of(const float* target, int width, int label, int c, float hard, float soft) {
    return (width > 1 ? target[c] : c == label ? 1.0f : 0.0f) * hard + soft;
}

// hard = 1 - s, soft = s / C.
template <typename T>
__device__ void loss_rows(const T* x, const float* targets, float* rows, T* p, int n, int classes, int width,
                          float hard, float soft) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= n) return;
    x += (long long)row * classes;
    const float* target = targets + (long long)row * width;
    const int label = class_of(target, width);
    float max = -INFINITY;
    for (int c = lane; c < classes; c += 32) max = fmaxf(max, to_float(x[c]));
    max = warp_max(max);
    float sum = 0.0f;
    for (int c = lane; c < classes; c += 32) sum += expf(to_float(x[c]) - max);
    sum = warp_sum(sum);
    const float log_sum = logf(sum) + max, own = to_float(x[label]);
    float loss = 0.0f, above = 0.0f;
    for (int c = lane; c < classes; c += 32) {
        const float v = to_float(x[c]), t = target_of(target, width, label, c, hard, soft);
        if (t != 0.0f) loss += t * (log_sum - v);
        if (v > own || (v == own && c < label)) above += 1.0f;
        if (p) p[(long long)row * classes + c] = from_float<T>(expf(v - max) / sum);
    }
    loss = warp_sum(loss);
    above = warp_sum(above);
    if (lane == 0) {
        rows[3 * row] = loss;
        rows[3 * row + 1] = above < 1.0f;
        rows[3 * row + 2] = above < 5.0f;
    }
}

template <typename T>
__device__ void loss_dx(const T* p, const float* targets, T* dx, int n, int classes, int width, float hard, float soft,
                        float scale) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n) return;
    const float* target = targets + (long long)row * width;
    const int label = class_of(target, width);
    for (int c = threadIdx.x % 32; c < classes; c += 32) {
        const long long i = (long long)row * classes + c;
        dx[i] = from_float<T>((to_float(p[i]) - target_of(target, width, label, c, hard, soft)) * scale);
    }
}

extern "C" __global__ void __launch_bounds__(256) softmax_cross_entropy_forward(
    const float* x,  // (N, classes)
    const float* targets,  // (N, width): width 1 or classes
    float* rows,  // (N, 3): loss, among the first, among the first five
    float* p,  // (N, classes), or null
    int n, int classes, int width, float hard, float soft) {
    loss_rows(x, targets, rows, p, n, classes, width, hard, soft);
}

extern "C" __global__ void __launch_bounds__(256) softmax_cross_entropy_forward_bf16(
    const __nv_bfloat16* x,  // (N, classes)
    const float* targets,  // (N, width): width 1 or classes
    float* rows,  // (N, 3): loss, among the first, among the first five
    __nv_bfloat16* p,  // (N, classes), or null
    int n, int classes, int width, float hard, float soft) {
    loss_rows(x, targets, rows, p, n, classes, width, hard, soft);
}

// One block: the sums of the rows in an order fixed by their number.
extern "C" __global__ void __launch_bounds__(256) softmax_cross_entropy_metrics(
    const float* rows,  // (N, 3)
    float* metrics,  // (4): loss * scale, first, first five, samples
    int n, float scale) {
    float sums[3] = {0.0f, 0.0f, 0.0f};
    for (int row = threadIdx.x; row < n; row += blockDim.x)
        for (int i = 0; i < 3; ++i) sums[i] += rows[3ll * row + i];
    for (int i = 0; i < 3; ++i) sums[i] = block_sum(sums[i]);
    if (threadIdx.x > 0) return;
    metrics[0] = sums[0] * scale;
    metrics[1] = sums[1];
    metrics[2] = sums[2];
    metrics[3] = (float)n;
}

extern "C" __global__ void __launch_bounds__(256) softmax_cross_entropy_backward(
    const float* p,  // (N, classes)
    const float* targets,  // (N, width): width 1 or classes
    float* dx,  // (N, classes)
    int n, int classes, int width, float hard, float soft, float scale) {
    loss_dx(p, targets, dx, n, classes, width, hard, soft, scale);
}

extern "C" __global__ void __launch_bounds__(256) softmax_cross_entropy_backward_bf16(
    const __nv_bfloat16* p,  // (N, classes)
    const float* targets,  // (N, width): width 1 or classes
    __nv_bfloat16* dx,  // (N, classes)
    int n, int classes, int width, float hard, float soft, float scale) {
    loss_dx(p, targets, dx, n, classes, width, hard, soft, scale);
}
