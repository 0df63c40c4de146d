// Softmax and cross-entropy, with one pass over the logits in each direction: one warp per sample, eight samples per
// block. Logits beyond the first 1024 of a sample are read three times. If the number of classes and the addresses
// allow it, a lane processes 16 bytes at a time. Targets are f32 whatever the logits are, because bf16 cannot represent
// all class indices above 256.
#include "block.cuh"

struct Best {
    float value;
    int index;
};

// The largest value of a warp, the first one if several are equal.
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

// A warp's row: of every 32 V values, a lane has V neighbours. It holds its first 32 values in registers.
template <typename T, int V> struct Row {
    static constexpr int STEP = 32 * V, HELD = 1024;
    const T* x;
    int classes;
    float held[HELD / STEP][V];

    __device__ Row(const T* x, int classes) : x(x), classes(classes) {
#pragma unroll
        for (int s = 0; s < HELD / STEP; ++s)
            if (first(s) < classes) load(first(s), held[s]);
    }
    __device__ static __forceinline__ int first(int s) { return s * STEP + threadIdx.x % 32 * V; }
    __device__ __forceinline__ void load(int c, float (&values)[V]) const {
        const Run<T, V> run = load_run<V>(x + c);
#pragma unroll
        for (int j = 0; j < V; ++j) values[j] = to_float(run.at[j]);
    }
    // Calls f(c, values) for a lane's classes c .. c + V, in order.
    template <class F> __device__ __forceinline__ void each(const F& f) const {
#pragma unroll
        for (int s = 0; s < HELD / STEP; ++s)
            if (first(s) < classes) f(first(s), held[s]);
#pragma unroll 1
        for (int c = first(HELD / STEP); c < classes; c += STEP) {
            float values[V];
            load(c, values);
            f(c, values);
        }
    }
};

// hard = 1 - s, soft = s / C.
template <typename T>
__device__ void softmax_cross_entropy_forward(
    const T* x,            // (N, classes)
    const float* targets,  // (N, width): width 1 or classes
    float* rows,           // (N, 3): loss, whether in the top 1, whether in the top 5
    T* p,                  // (N, classes), or null
    int n, int classes, int width, float hard, float soft) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n) return;
    const long long begin = (long long)row * classes;
    const float* target = targets + (long long)row * width;
    const int label = class_of(target, width);
    const auto one = [&](auto size) {
        constexpr int V = decltype(size)::value;
        const Row<T, V> logits(x + begin, classes);
        const float own = to_float(x[begin + label]);
        float max = -INFINITY, sum = 0.0f, loss = 0.0f, above = 0.0f;
        logits.each([&](int, const float (&values)[V]) {
#pragma unroll
            for (int j = 0; j < V; ++j) max = fmaxf(max, values[j]);
        });
        max = warp_max(max);
        logits.each([&](int, const float (&values)[V]) {
#pragma unroll
            for (int j = 0; j < V; ++j) sum += expf(values[j] - max);
        });
        sum = warp_sum(sum);
        const float log_sum = logf(sum) + max, part = 1.0f / sum;
        logits.each([&](int c, const float (&values)[V]) {
            float shares[V];
#pragma unroll
            for (int j = 0; j < V; ++j) {
                const float v = values[j], t = target_of(target, width, label, c + j, hard, soft);
                if (t != 0.0f) loss += t * (log_sum - v);
                if (v > own || (v == own && c + j < label)) above += 1.0f;
                shares[j] = expf(v - max) * part;
            }
            if (p) store_run(p + begin + c, shares);
        });
        loss = warp_sum(loss);
        above = warp_sum(above);
        if (threadIdx.x % 32 > 0) return;
        rows[3 * row] = loss;
        const bool finite = is_finite(log_sum - own);
        rows[3 * row + 1] = finite && above < 1.0f;
        rows[3 * row + 2] = finite && above < 5.0f;
    };
    by_alignment<T>(classes, one, x, p);
}
KERNEL(softmax_cross_entropy_forward, f32, bf16)

template <typename T>
__device__ void softmax_cross_entropy_backward(
    const T* p,            // (N, classes)
    const float* targets,  // (N, width): width 1 or classes
    T* dx,                 // (N, classes)
    int n, int classes, int width, float hard, float soft, float scale) {
    const int row = blockIdx.x * 8 + threadIdx.x / 32;
    if (row >= n) return;
    const long long begin = (long long)row * classes;
    const float* target = targets + (long long)row * width;
    const int label = width == 1 ? (int)target[0] : 0;
    const auto one = [&](auto size) {
        constexpr int V = decltype(size)::value;
        for (int c = threadIdx.x % 32 * V; c < classes; c += 32 * V) {
            const Run<T, V> run = load_run<V>(p + begin + c);
            float values[V];
#pragma unroll
            for (int j = 0; j < V; ++j)
                values[j] = (to_float(run.at[j]) - target_of(target, width, label, c + j, hard, soft)) * scale;
            store_run(dx + begin + c, values);
        }
    };
    by_alignment<T>(classes, one, p, dx);
}
KERNEL(softmax_cross_entropy_backward, f32, bf16)
