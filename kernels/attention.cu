// Multi-head attention: y_i = sum over j of p_ij v_j with p_i = softmax over j of (q_i k_j scale). A warp computes one position of one
// head of one sample; its lanes compute products of 32 positions at a time, and hold up to 8 channels each.
#include "block.cuh"

struct AttentionGeometry {
    long long rows;  // positions of all heads of all samples
    int positions, c, heads;
    int d;  // channels of a head
    float scale;
};

constexpr int CHANNELS = 8;

// The row of a warp.
struct AttentionRow {
    long long row, first;  // first: the first channel of the head at position 0 of the sample
    int position, lane;
    __device__ AttentionRow(const AttentionGeometry& g) {
        row = blockIdx.x * 8ll + threadIdx.x / 32;
        lane = threadIdx.x % 32;
        const long long unit = row / g.positions, sample = unit / g.heads;
        position = (int)(row - unit * g.positions);
        first = sample * g.positions * g.c + (unit - sample * g.heads) * g.d;
    }
};

template <typename T> __device__ __forceinline__ float inner(const T* a, const T* b, int d) {
    float sum = 0.0f;
    for (int i = 0; i < d; ++i) sum += to_float(a[i]) * to_float(b[i]);
    return sum;
}

// The largest product of a row, and the sum of the exponentials of the differences from it.
template <typename T>
__device__ __forceinline__ float2 attention_sums(const T* own, const T* k, const AttentionRow& r, const AttentionGeometry& g) {
    float most = -3.402823466e38f, sum = 0.0f;
    for (int j = r.lane; j < g.positions; j += 32) {
        const float s = inner(own, k + r.first + (long long)j * g.c, g.d) * g.scale, next = fmaxf(most, s);
        // NaN stays NaN.
        sum = s == s ? sum * expf(most - next) + expf(s - next) : s;
        most = next;
    }
    const float all = warp_max(most);
    return make_float2(all, warp_sum(sum * expf(most - all)));
}

// Adds factor times the channels of a position to the sums of the lanes.
template <typename T>
__device__ __forceinline__ void add_channels(float (&sums)[CHANNELS], float factor, const T* x, int lane, int d) {
#pragma unroll
    for (int t = 0; t < CHANNELS; ++t)
        if (lane + 32 * t < d) sums[t] += factor * to_float(x[lane + 32 * t]);
}
template <typename T> __device__ __forceinline__ void store_channels(T* to, const float (&sums)[CHANNELS], int lane, int d) {
#pragma unroll
    for (int t = 0; t < CHANNELS; ++t)
        if (lane + 32 * t < d) to[lane + 32 * t] = from_float<T>(sums[t]);
}

template <typename T>
__device__ void attention_forward(
    const T* q,  // (N, positions, c)
    const T* k,  // (N, positions, c)
    const T* v,  // (N, positions, c)
    T* y,        // (N, positions, c)
    AttentionGeometry g) {
    const AttentionRow r(g);
    if (r.row >= g.rows) return;
    const long long at = r.first + (long long)r.position * g.c;
    const float2 sums = attention_sums(q + at, k, r, g);
    float out[CHANNELS] = {};
    for (int begin = 0; begin < g.positions; begin += 32) {
        const int j = begin + r.lane;
        const float s = j < g.positions ? inner(q + at, k + r.first + (long long)j * g.c, g.d) * g.scale : 0.0f;
        const float p = expf(s - sums.x) / sums.y;
        for (int other = 0; other < min(32, g.positions - begin); ++other) {
            const float factor = __shfl_sync(0xffffffffu, p, other);
            add_channels(out, factor, v + r.first + (long long)(begin + other) * g.c, r.lane, g.d);
        }
    }
    store_channels(y + at, out, r.lane, g.d);
}
KERNEL(attention_forward, f32, bf16)

// dq, and for attention_keys the logarithm of the sum of each row, and the mean over j of dy_i v_j, in which y is not rounded.
template <typename T>
__device__ void attention_queries(
    const T* q,    // (N, positions, c)
    const T* k,    // (N, positions, c)
    const T* v,    // (N, positions, c)
    const T* dy,   // (N, positions, c)
    T* dq,         // (N, positions, c), or null
    float* stats,  // (rows, 2)
    AttentionGeometry g) {
    const AttentionRow r(g);
    if (r.row >= g.rows) return;
    const long long at = r.first + (long long)r.position * g.c;
    const float2 sums = attention_sums(q + at, k, r, g);
    const float log_sum = sums.x + logf(sums.y);
    float mean = 0.0f;
    for (int j = r.lane; j < g.positions; j += 32) {
        const long long key = r.first + (long long)j * g.c;
        mean += expf(inner(q + at, k + key, g.d) * g.scale - log_sum) * inner(dy + at, v + key, g.d);
    }
    mean = warp_sum(mean);
    if (r.lane == 0) {
        stats[2 * r.row] = log_sum;
        stats[2 * r.row + 1] = mean;
    }
    if (!dq) return;
    float out[CHANNELS] = {};
    for (int begin = 0; begin < g.positions; begin += 32) {
        const int j = begin + r.lane;
        float ds = 0.0f;
        if (j < g.positions) {
            const long long key = r.first + (long long)j * g.c;
            const float p = expf(inner(q + at, k + key, g.d) * g.scale - log_sum);
            ds = p * (inner(dy + at, v + key, g.d) - mean) * g.scale;
        }
        for (int other = 0; other < min(32, g.positions - begin); ++other) {
            const float factor = __shfl_sync(0xffffffffu, ds, other);
            add_channels(out, factor, k + r.first + (long long)(begin + other) * g.c, r.lane, g.d);
        }
    }
    store_channels(dq + at, out, r.lane, g.d);
}
KERNEL(attention_queries, f32, bf16)

// dk and dv; the position of a warp is that of a key.
template <typename T>
__device__ void attention_keys(
    const T* q,          // (N, positions, c)
    const T* k,          // (N, positions, c)
    const T* v,          // (N, positions, c)
    const T* dy,         // (N, positions, c)
    const float* stats,  // (rows, 2)
    T* dk,               // (N, positions, c), or null
    T* dv,               // (N, positions, c), or null
    AttentionGeometry g) {
    const AttentionRow r(g);
    if (r.row >= g.rows) return;
    const long long at = r.first + (long long)r.position * g.c, first_row = r.row - r.position;
    float keys[CHANNELS] = {}, values[CHANNELS] = {};
    for (int begin = 0; begin < g.positions; begin += 32) {
        const int i = begin + r.lane;
        float p = 0.0f, ds = 0.0f;
        if (i < g.positions) {
            const long long query = r.first + (long long)i * g.c;
            const float* own = stats + 2 * (first_row + i);
            p = expf(inner(q + query, k + at, g.d) * g.scale - own[0]);
            ds = p * (inner(dy + query, v + at, g.d) - own[1]) * g.scale;
        }
        for (int other = 0; other < min(32, g.positions - begin); ++other) {
            const long long query = r.first + (long long)(begin + other) * g.c;
            const float by_p = __shfl_sync(0xffffffffu, p, other), by_ds = __shfl_sync(0xffffffffu, ds, other);
            add_channels(keys, by_ds, q + query, r.lane, g.d);
            add_channels(values, by_p, dy + query, r.lane, g.d);
        }
    }
    if (dk) store_channels(dk + at, keys, r.lane, g.d);
    if (dv) store_channels(dv + at, values, r.lane, g.d);
}
KERNEL(attention_keys, f32, bf16)
