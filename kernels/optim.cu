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
    float* v = slots + (int)op[1];
    switch ((int)op[0]) {
        case WEIGHT_DECAY: return g + a * decay_mult * w;
        case MOMENTUM: return *v = a * *v + g;
        case NESTEROV: *v = a * *v + g; return g + a * *v;
        case CLIP_BY_GLOBAL_NORM: return norm > a ? g * (a / norm) : g;
        default: return NAN;
    }
}

// The last segment that begins at or before element i.
__device__ inline int segment_of(const long long* ranges, int segments, long long i) {
    int low = 0, high = segments;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (ranges[2 * middle] <= i) low = middle;
        else high = middle;
    }
    return low;
}

// One thread per 4 elements. With lr, it updates the weights and their bf16 copy, so that no instruction has to round
// them again; without lr, it writes the gradients for a later stage. Nothing is written if a gradient is not finite.
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
    const long long* ranges,  // (segments, 2): begin, end
    const float* factors,     // (segments, 2): lr_mult, decay_mult
    const float* lr,          // (1), or null
    const float* bad_gradients,  // (1)
    float* bad_weights,          // (1), set to 1 if a weight is not finite afterwards; null without lr
    long long n, int ops, int segments) {
    if (*bad_gradients != 0.0f) return;
    float norm = 0.0f;
    if (norms) {
        for (int i = threadIdx.x; i < segments; i += blockDim.x) norm += norms[i];
        norm = sqrtf(block_sum(norm));
    }
    const long long i = vector_start<float>();
    if (i >= n) return;
    float* const regions[4] = {slot0, slot1, slot2, slot3};
    Vector<float> weights = load_vector(w, i, n), gradients = load_vector(g, i, n), slots[4];
#pragma unroll
    for (int s = 0; s < 4; ++s)
        if (regions[s]) slots[s] = load_vector(regions[s], i, n);
    int segment = segment_of(ranges, segments, i);
    // The padding between segments does not belong to the optimiser.
    if (i >= ranges[2 * segment + 1] && (segment + 1 == segments || i + 4 <= ranges[2 * segment + 2])) return;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        while (segment + 1 < segments && ranges[2 * segment + 2] <= i + j) ++segment;
        if (i + j < ranges[2 * segment] || i + j >= ranges[2 * segment + 1]) continue;
        float own[4];
#pragma unroll
        for (int s = 0; s < 4; ++s) own[s] = regions[s] ? slots[s].at[j] : 0.0f;
        float gradient = gradients.at[j];
        for (int op = 0; op < ops; ++op)
            gradient = transformed(program + op * WORDS, gradient, weights.at[j], own, factors[2 * segment + 1], norm);
#pragma unroll
        for (int s = 0; s < 4; ++s)
            if (regions[s]) slots[s].at[j] = own[s];
        gradients.at[j] = gradient;
        if (!lr || factors[2 * segment] == 0.0f) continue;
        weights.at[j] -= *lr * factors[2 * segment] * gradient;
        if (!is_finite(weights.at[j])) *bad_weights = 1.0f;
    }
#pragma unroll
    for (int s = 0; s < 4; ++s)
        if (regions[s]) store_vector(regions[s], i, n, slots[s]);
    if (!lr) {
        store_vector(g, i, n, gradients);
        return;
    }
    store_vector(w, i, n, weights);
    if (!halves) return;
    if (i + 4 <= n && (unsigned long long)halves % 8 == 0) {
        store_run(halves + i, weights.at);
    } else {
        for (int j = 0; j < 4; ++j)
            if (i + j < n) halves[i + j] = from_float<bf16>(weights.at[j]);
    }
}
KERNEL(optim_apply)

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
