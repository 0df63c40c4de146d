// The optimiser: a chain of transforms, applied per element in one pass over the flat regions, and the squared norms
// that some of them need. Clock and norms are read from memory, so that a captured graph uses their current values.
//
// build.rs includes every kernels/optim/*.cuh before this file and lists them: TRANSFORMS(F) is F(0, ASettings)
// F(1, BSettings) .. in the order of their names. After this file, it writes a kernel like optim_apply for each transform
// that has slots, for chains that have no other except weight decay before and after it.
#include "transform.cuh"

// What a transform reads: its settings, or what it prepares from them.
template <class Settings> using Prepared = decltype(prepare(std::declval<const Settings&>(), std::declval<const Step&>()));

// A transform in the table of a stage.
struct Operation {
    int code;      // its number in TRANSFORMS
    int rotation;  // the places by which all slots move afterwards, so that those of the next transform come first
    long long start;  // the number of updates before it joined the chain
    double settings[6];

    template <class T> __device__ __forceinline__ T read() const {
        static_assert(sizeof(T) <= sizeof(settings), "the settings of a transform are too many for the table");
        T read;
        memcpy(&read, settings, sizeof(T));
        return read;
    }
    template <class Settings> __device__ void prepare_from(unsigned step) {
        const Prepared<Settings> prepared = prepare(read<Settings>(), Step{step - start});
        static_assert(sizeof(prepared) <= sizeof(settings), "a transform prepares too much for the table");
        memcpy(settings, &prepared, sizeof(prepared));
    }
};
constexpr int MOST_OPERATIONS = 16;
using Operations = Operation[MOST_OPERATIONS];

// Moves all slots by a number of places, of which there are four; those in the first places move to the end.
template <int N> __device__ __forceinline__ void rotate(Element (&e)[N], int places) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
        float(&s)[4] = e[j].slots;
        if (places & 1) {
            const float first = s[0];
            s[0] = s[1], s[1] = s[2], s[2] = s[3], s[3] = first;
        }
        if (places & 2) {
            const float first = s[0], second = s[1];
            s[0] = s[2], s[1] = s[3], s[2] = first, s[3] = second;
        }
    }
}

// Applies the operations of a table, which are prepared in shared memory.
struct Interpreter {
    const Operation* operations;
    int count;

    template <int N> __device__ __forceinline__ void operator()(const Parameter& p, Element (&e)[N]) const {
        for (int i = 0; i < count; ++i) {
            switch (operations[i].code) {
#define APPLY(number, Settings)                                      \
    case number: {                                                   \
        const auto s = operations[i].read<Prepared<Settings>>();     \
        _Pragma("unroll") for (int j = 0; j < N; ++j) transform(s, p, e[j]); \
    } break;
                TRANSFORMS(APPLY)
#undef APPLY
            }
            rotate(e, operations[i].rotation);
        }
    }
};

// Applies one transform, and weight decay before and after it.
template <class Settings> struct Single {
    Prepared<Settings> s;
    WeightDecaySettings before, after;

    template <int N> __device__ __forceinline__ void operator()(const Parameter& p, Element (&e)[N]) const {
#pragma unroll
        for (int j = 0; j < N; ++j) {
            transform(before, p, e[j]);
            transform(s, p, e[j]);
            transform(after, p, e[j]);
        }
    }
};

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

// The whole flat regions, and the slots of a stage.
struct Regions {
    float* w;
    bf16* halves;  // or null
    float* g;
    float* slots[4];  // or null
    const float* unit_norms;  // or null
    int units;
};

// Returns what the elements of a block have in common, which belong to one segment.
__device__ inline Parameter parameter_of(const float* norms, const float* weight_norms, const float* factors,
                                         const long long* range, float lr, int segments) {
    Parameter p = {lr * factors[0], factors[1], 0.0f, 0.0f, 0.0f, 0.0f};
    const int segment = (int)range[2];
    if (norms) {
        for (int i = threadIdx.x; i < segments; i += blockDim.x) p.norm += norms[i];
        p.norm = sqrtf(block_sum(p.norm));
        for (int i = (int)range[3]; i < (int)range[4]; ++i) p.layer_norm += norms[i];
        p.layer_norm = sqrtf(p.layer_norm);
        p.gradient_norm = sqrtf(norms[segment]);
    }
    if (weight_norms) p.weight_norm = sqrtf(weight_norms[segment]);
    return p;
}

// Applies a program to a range. `update` also updates the weights, unless they are frozen; otherwise the gradients are
// written for a later stage.
template <class Program>
__device__ __forceinline__ void apply_chain(const Program& program, const Regions& at, const Parameter& p,
                                            const long long* range, bool frozen, float* bad_weights, int update) {
    each_in_range(range, [&](auto size, long long i) {
        constexpr int N = decltype(size)::value;
        float weights[N], values[N];
        Element e[N] = {};
        load_floats(at.w + i, weights);
        load_floats(at.g + i, values);
#pragma unroll
        for (int j = 0; j < N; ++j) e[j].w = weights[j], e[j].g = values[j];
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            if (!at.slots[s]) continue;
            load_floats(at.slots[s] + i, values);
#pragma unroll
            for (int j = 0; j < N; ++j) e[j].slots[s] = values[j];
        }
        if (at.unit_norms) {
#pragma unroll
            for (int j = 0; j < N; ++j) {
                const long long unit = range[6] + (i + j - range[5]) / range[7];
                e[j].unit_gradient = sqrtf(at.unit_norms[unit]);
                e[j].unit_weights = sqrtf(at.unit_norms[at.units + unit]);
            }
        }
        program(p, e);
#pragma unroll
        for (int s = 0; s < 4; ++s) {
            if (!at.slots[s]) continue;
#pragma unroll
            for (int j = 0; j < N; ++j) values[j] = e[j].slots[s];
            store_run(at.slots[s] + i, values);
        }
        if (!update) {
#pragma unroll
            for (int j = 0; j < N; ++j) values[j] = e[j].g;
            store_run(at.g + i, values);
        } else if (!frozen) {
#pragma unroll
            for (int j = 0; j < N; ++j) weights[j] -= p.lr * e[j].g;
            store_weights(at.w + i, at.halves ? at.halves + i : nullptr, bad_weights, weights);
        }
    });
}

// One block per range, which is within a segment. With `update`, it updates the weights; otherwise it writes the
// gradients for a later stage. Nothing is written if a gradient is not finite.
__device__ void optim_apply(
    float* w,                    // (n)
    __nv_bfloat16* halves,       // (n), or null
    float* g,                    // (n)
    const float* norms,          // (segments): squares of the gradients, or null
    const float* weight_norms,   // (segments): squares of the weights, or null
    float* slot0,                // (n), or null
    float* slot1,                // (n), or null
    float* slot2,                // (n), or null
    float* slot3,                // (n), or null
    const float* unit_norms,     // (2, units): squares of the gradients of units, and of their weights, or null
    const long long* ranges,     // (blocks, 8): begin, end, segment; the first segment of its layer, and the one after its last;
                                 // the begin of the segment, its first unit, and the elements of a unit
    const float* factors,        // (blocks, 2): lr_mult, decay_mult
    const unsigned* step,        // (1)
    const float* lr,             // (1)
    const float* bad_gradients,  // (1)
    float* bad_weights,          // (1), set to 1 if a weight is not finite afterwards; null without update
    int update, int segments, int units,
    const unsigned long long* operations,  // (ops, 8)
    int ops) {
    if (*bad_gradients != 0.0f) return;
    SHARED(Operations, table);
    if ((int)threadIdx.x < ops) {
        Operation& op = table[threadIdx.x];
        memcpy(&op, operations + 8 * threadIdx.x, sizeof(Operation));
        switch (op.code) {
#define PREPARE(number, Settings) \
    case number: op.prepare_from<Settings>(*step); break;
            TRANSFORMS(PREPARE)
#undef PREPARE
        }
    }
    const long long* range = ranges + 8 * blockIdx.x;
    factors += 2 * blockIdx.x;
    const Parameter p = parameter_of(norms, weight_norms, factors, range, *lr, segments);
    __syncthreads();
    const Regions at = {w, halves, g, {slot0, slot1, slot2, slot3}, unit_norms, units};
    apply_chain(Interpreter{table, ops}, at, p, range, factors[0] == 0.0f, bad_weights, update);
}
KERNEL(optim_apply)

// Applies one transform with settings of its own, after weight decay by `before` and before weight decay by `after`.
template <class Settings>
__device__ __forceinline__ void apply_single(
    const Regions& at, const float* norms, const float* weight_norms, const long long* range, const float* factors,
    unsigned step, float lr, float* bad_weights, int update, int segments, long long start, float before, float after,
    const Settings& settings) {
    using Shared = Prepared<Settings>;
    SHARED(Shared, prepared);
    if (threadIdx.x == 0) prepared = prepare(settings, Step{step - start});
    const Parameter p = parameter_of(norms, weight_norms, factors, range, lr, segments);
    __syncthreads();
    const Single<Settings> single = {prepared, {before}, {after}};
    apply_chain(single, at, p, range, factors[0] == 0.0f, bad_weights, update);
}

// One block, before optim_check_parts: whether all metrics, losses among them, and all of n values are finite.
__device__ void optim_check(
    const float* values,   // (n)
    const float* metrics,  // (count)
    float* bad_gradients,  // (1): 1 or 0
    float* bad_weights,    // (1): 0
    int n, int count) {
    float bad = 0.0f;
    for (int i = threadIdx.x; i < count; i += blockDim.x)
        if (!is_finite(metrics[i])) bad = 1.0f;
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

// One block per unit: the sum of squares of what this device has of it, or 0 if it has nothing that counts.
__device__ void optim_unit_norms(
    const float* values,      // (n)
    const long long* ranges,  // (units, 2): begin, end
    float* norms) {           // (units)
    const long long begin = ranges[2ll * blockIdx.x], end = ranges[2ll * blockIdx.x + 1];
    float sum = 0.0f;
    for (long long i = begin + threadIdx.x; i < end; i += blockDim.x) sum += values[i] * values[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) norms[blockIdx.x] = sum;
}
KERNEL(optim_unit_norms)
