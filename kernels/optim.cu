// The optimiser: a chain of transforms, interpreted per element in one pass over the flat regions, and the squared
// norms that some of them need. Learning rate and norms are read from memory, so that a captured graph uses their
// current values.
#include "block.cuh"

// A transform in the chain: (code, first slot, settings...) in 8 floats.
enum Code {
    WEIGHT_DECAY = 0,         // g += a decay_mult w
    MOMENTUM = 1,             // v = a v + g; g = v
    NESTEROV = 2,             // v = a v + g; g += a v
    CLIP_BY_GLOBAL_NORM = 3,  // g *= a / norm where norm > a
};
constexpr int WORDS = 8;

__device__ inline float transformed(const float* op, float g, float w, float* slots, float decay_mult, float norm) {
    const float a = op[2];
    const int slot = (int)op[1];
    // Slots stay in registers, which have no index.
    float v = 0.0f;
#pragma unroll
    for (int s = 0; s < 4; ++s)
        if (s == slot) v = slots[s];
    switch ((int)op[0]) {
        case WEIGHT_DECAY: return g + a * decay_mult * w;
        case MOMENTUM: v = g = a * v + g; break;
        case NESTEROV: v = a * v + g; g = g + a * v; break;
        case CLIP_BY_GLOBAL_NORM: return norm > a ? g * (a / norm) : g;
        default: return NAN;
    }
#pragma unroll
    for (int s = 0; s < 4; ++s)
        if (s == slot) slots[s] = v;
    return g;
}

// Calls f(size, i) for the elements of a range: four at a time, then those before and after whole vectors.
template <class F> __device__ __forceinline__ void each_in_range(const long long* range, const F& f) {
    const long long end = range[1], first = min(end, (range[0] + 3) / 4 * 4), whole = first + (end - first) / 4 * 4;
    for (long long i = first + 4 * threadIdx.x; i < whole; i += 4 * blockDim.x) f(std::integral_constant<int, 4>(), i);
    const long long odd = range[0] + threadIdx.x, i = odd < first ? odd : whole + (odd - first);
    if (i < end) f(std::integral_constant<int, 1>(), i);
}

// Stores weights and their bf16 copy, so that no instruction has to round them again, and notices those that are not
// finite.
template <int N>
__device__ __forceinline__ void store_weights(float* w, bf16* halves, float* bad_weights, const float (&weights)[N]) {
    float sum = 0.0f;  // 0 unless a weight is not finite
#pragma unroll
    for (int j = 0; j < N; ++j) sum += weights[j] - weights[j];
    if (sum != 0.0f) *bad_weights = 1.0f;
    store_run(w, weights);
    if (halves) store_run(halves, weights);
}

// One block per range, which is within a segment. With lr, it updates the weights; without lr, it writes the gradients
// for a later stage. Nothing is written if a gradient is not finite.
__device__ void optim_apply(
    float* w,                 // (n)
    __nv_bfloat16* halves,    // (n), or null
    float* g,                 // (n)
    const float* norms,       // (segments): squares, or null
    float* slot0,             // (n), or null
    float* slot1,             // (n), or null
    float* slot2,             // (n), or null
    float* slot3,             // (n), or null
    const float* program,     // (ops, 8)
    const long long* ranges,  // (blocks, 2): begin, end
    const float* factors,     // (blocks, 2): lr_mult, decay_mult
    const float* lr,          // (1), or null
    const float* bad_gradients,  // (1)
    float* bad_weights,          // (1), set to 1 if a weight is not finite afterwards; null without lr
    int ops, int segments) {
    if (*bad_gradients != 0.0f) return;
    float norm = 0.0f;
    if (norms) {
        for (int i = threadIdx.x; i < segments; i += blockDim.x) norm += norms[i];
        norm = sqrtf(block_sum(norm));
    }
    float* const regions[4] = {slot0, slot1, slot2, slot3};
    const float lr_mult = factors[2 * blockIdx.x], decay_mult = factors[2 * blockIdx.x + 1];
    const float rate = lr ? *lr * lr_mult : 0.0f;
    each_in_range(ranges + 2 * blockIdx.x, [&](auto size, long long i) {
        constexpr int N = decltype(size)::value;
        float weights[N], gradients[N], slots[N][4] = {};
        load_floats(w + i, weights);
        load_floats(g + i, gradients);
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            if (!regions[s]) continue;
            float slot[N];
            load_floats(regions[s] + i, slot);
#pragma unroll
            for (int j = 0; j < N; ++j) slots[j][s] = slot[j];
        }
        for (int op = 0; op < ops; ++op)
#pragma unroll
            for (int j = 0; j < N; ++j)
                gradients[j] = transformed(program + op * WORDS, gradients[j], weights[j], slots[j], decay_mult, norm);
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            if (!regions[s]) continue;
            float slot[N];
#pragma unroll
            for (int j = 0; j < N; ++j) slot[j] = slots[j][s];
            store_run(regions[s] + i, slot);
        }
        if (!lr) {
            store_run(g + i, gradients);
        } else if (lr_mult != 0.0f) {
#pragma unroll
            for (int j = 0; j < N; ++j) weights[j] -= rate * gradients[j];
            store_weights(w + i, halves ? halves + i : nullptr, bad_weights, weights);
        }
    });
}
KERNEL(optim_apply)

// The most common chain, weight decay and momentum, as optim_apply computes it: g' = g + decay decay_mult w,
// v = mu v + g', w -= lr lr_mult v.
__device__ void optim_sgd(
    float* w,                 // (n)
    __nv_bfloat16* halves,    // (n), or null
    const float* g,           // (n)
    float* velocity,          // (n)
    const long long* ranges,  // (blocks, 2): begin, end
    const float* factors,     // (blocks, 2): lr_mult, decay_mult
    const float* lr,          // (1)
    const float* bad_gradients,  // (1)
    float* bad_weights,          // (1), set to 1 if a weight is not finite afterwards
    float decay, float mu) {
    if (*bad_gradients != 0.0f) return;
    const float lr_mult = factors[2 * blockIdx.x], shrinks = decay * factors[2 * blockIdx.x + 1], rate = *lr * lr_mult;
    each_in_range(ranges + 2 * blockIdx.x, [&](auto size, long long i) {
        constexpr int N = decltype(size)::value;
        float weights[N], gradients[N], velocities[N];
        load_floats(w + i, weights);
        load_floats(g + i, gradients);
        load_floats(velocity + i, velocities);
#pragma unroll
        for (int j = 0; j < N; ++j) {
            velocities[j] = mu * velocities[j] + (gradients[j] + shrinks * weights[j]);
            weights[j] -= rate * velocities[j];
        }
        store_run(velocity + i, velocities);
        if (lr_mult != 0.0f) store_weights(w + i, halves ? halves + i : nullptr, bad_weights, weights);
    });
}
KERNEL(optim_sgd)

// One block, before optim_check_parts: whether the loss and all of n values are finite.
__device__ void optim_check(
    const float* values,   // (n)
    const float* metrics,  // (4): the loss first
    float* bad_gradients,  // (1): 1 or 0
    float* bad_weights,    // (1): 0
    int n) {
    float bad = is_finite(metrics[0]) ? 0.0f : 1.0f;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        if (!is_finite(values[i])) bad = 1.0f;
    bad = block_max(bad);
    if (threadIdx.x > 0) return;
    *bad_gradients = bad;
    *bad_weights = 0.0f;
}
KERNEL(optim_check)

// One block per range.
__device__ void optim_check_parts(
    const float* g,           // (n)
    const long long* ranges,  // (ranges, 2): begin, end
    float* bad_gradients) {   // (1), set to 1 if a gradient in a range is not finite
    const long long n = ranges[2 * blockIdx.x + 1] - ranges[2 * blockIdx.x];
    g += ranges[2 * blockIdx.x];
    const long long whole = (unsigned long long)g % 16 == 0 ? n / 4 * 4 : 0;
    // Stays 0 unless a gradient is not finite.
    float sum = 0.0f;
#pragma unroll 4
    for (long long i = 4 * threadIdx.x; i < whole; i += 4 * blockDim.x) {
        const Run<float, 4> run = load_run<4>(g + i);
#pragma unroll
        for (int j = 0; j < 4; ++j) sum += run.at[j] - run.at[j];
    }
    for (long long i = whole + threadIdx.x; i < n; i += blockDim.x) sum += g[i] - g[i];
    if (sum != 0.0f) *bad_gradients = 1.0f;
}
KERNEL(optim_check_parts)

// Sums of squares of each segment's gradients, in 64 parts: grid (64, segments).
__device__ void optim_norm_parts(
    const float* g,           // (n)
    float* parts,             // (segments, 64)
    const long long* ranges,  // (segments, 2): begin, end
    int segments) {
    const long long begin = ranges[2 * blockIdx.y], end = ranges[2 * blockIdx.y + 1];
    const long long part = ((end - begin + 4095) / 4096 + 63) / 64 * 4096;
    const long long first = begin + blockIdx.x * part, last = min(end, first + part);
    float sum = 0.0f;
    for (long long i = first + threadIdx.x; i < last; i += blockDim.x) sum += g[i] * g[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.y * 64ll + blockIdx.x] = sum;
}
KERNEL(optim_norm_parts)

// One thread per segment: adds its parts in order, or writes 0 if another device counts it.
__device__ void optim_norm(
    const float* parts,    // (segments, 64)
    const float* counted,  // (segments): 1 or 0
    float* norms,          // (segments)
    int segments) {
    const int segment = blockIdx.x * blockDim.x + threadIdx.x;
    if (segment >= segments) return;
    float sum = 0.0f;
    for (int i = 0; i < 64; ++i) sum += parts[segment * 64ll + i];
    norms[segment] = counted[segment] != 0.0f ? sum : 0.0f;
}
KERNEL(optim_norm)
