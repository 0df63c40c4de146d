// Batch normalisation over rows of `width` channels. Statistics are (count, mean, M2), merged in a fixed order: within
// a block, then over the blocks of a device, then over devices (Chan et al. 1983). In batch_norm_statistics and
// batch_norm_reduce, a block processes 32 channels (grid x) of one part of the rows (grid y). If width and addresses
// allow it, a thread processes 16 bytes of a row at a time.
#include "columns.cuh"

// A thread's share of its block's rows, in batch_norm_statistics and batch_norm_reduce.
template <int V> __device__ __forceinline__ Share<V> share_of(long long rows, int width, int rows_per_part) {
    const long long begin = (long long)blockIdx.y * rows_per_part;
    return Share<V>(blockIdx.x, begin, min(rows, begin + rows_per_part), width);
}

struct Moments {
    float count, mean, m2;
};
__device__ inline Moments merged(const Moments& a, const Moments& b) {
    if (b.count == 0.0f) return a;
    const float count = a.count + b.count, delta = b.mean - a.mean;
    return {count, a.mean + delta * (b.count / count), a.m2 + b.m2 + delta * delta * (a.count * b.count / count)};
}

using MomentsTable = Moments[8][33];

// The sum over the lanes whose numbers differ in the bits from `first` on.
__device__ __forceinline__ float sum_of_lanes(float x, int first) {
    for (int bits = first; bits < 32; bits *= 2) x += __shfl_xor_sync(0xffffffffu, x, bits);
    return x;
}

template <int V, typename T>
__device__ __forceinline__ void count_rows(const T* x, MomentsTable& table, long long rows, int width, int rows_per_part) {
    const Share<V> share = share_of<V>(rows, width, rows_per_part);
    float count = 0.0f, mean[V] = {}, m2[V] = {};
    long long row = share.first;
    // Four rows at a time, with one division, and loads that do not wait for each other.
    for (; row + 3 * share.STEP < share.end; row += 4 * share.STEP) {
        Run<T, V> runs[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) runs[k] = load_run<V>(x + (row + k * share.STEP) * width + share.column);
        const float part = 4.0f / (count + 4.0f), weight = count * part;
        count += 4.0f;
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float a = to_float(runs[0].at[j]), b = to_float(runs[1].at[j]);
            const float c = to_float(runs[2].at[j]), d = to_float(runs[3].at[j]);
            const float four = 0.25f * ((a + b) + (c + d)), delta = four - mean[j];
            const float squares = (a - four) * (a - four) + (b - four) * (b - four) + (c - four) * (c - four) +
                                  (d - four) * (d - four);
            mean[j] += delta * part;
            m2[j] += squares + delta * delta * weight;
        }
    }
    for (; row < share.end; row += share.STEP) {
        const Run<T, V> run = load_run<V>(x + row * width + share.column);
        count += 1.0f;
        const float part = 1.0f / count;
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float v = to_float(run.at[j]), delta = v - mean[j];
            mean[j] += delta * part;
            m2[j] += delta * (v - mean[j]);
        }
    }
    // All channels of a thread have the same count. Sums are of differences from the mean of the warp's first rows.
    const int lane = threadIdx.x % 32;
    const float all = sum_of_lanes(count, share.LANES), inverse = 1.0f / fmaxf(all, 1.0f);
#pragma unroll
    for (int j = 0; j < V; ++j) {
        const float origin = __shfl_sync(0xffffffffu, mean[j], lane % share.LANES);
        const float shift = sum_of_lanes(count * (mean[j] - origin), share.LANES) * inverse;
        const float delta = mean[j] - origin - shift;
        const float squares = sum_of_lanes(m2[j] + count * delta * delta, share.LANES);
        if (lane < share.LANES) table[threadIdx.x / 32][share.across + j] = {all, origin + shift, squares};
    }
}

template <typename T>
__device__ void batch_norm_statistics(
    const T* x,    // (rows, width)
    float* parts,  // (parts, 3, width)
    long long rows, int width, int rows_per_part) {
    SHARED(MomentsTable, table);
    by_alignment<T>(width, [&](auto size) {
        count_rows<decltype(size)::value>(x, table, rows, width, rows_per_part);
    }, x);
    __syncthreads();
    const int channel = blockIdx.x * 32 + threadIdx.x;
    if (threadIdx.x >= 32 || channel >= width) return;
    const float origin = table[0][threadIdx.x].mean;
    float count = 0.0f, shift = 0.0f, m2 = 0.0f;
    for (int i = 0; i < 8; ++i) {
        const Moments warp = table[i][threadIdx.x];
        count += warp.count;
        shift += warp.count * (warp.mean - origin);
    }
    shift /= fmaxf(count, 1.0f);
    for (int i = 0; i < 8; ++i) {
        const Moments warp = table[i][threadIdx.x];
        const float delta = warp.mean - origin - shift;
        m2 += warp.m2 + warp.count * delta * delta;
    }
    float* part = parts + 3ll * blockIdx.y * width + channel;
    part[0] = count;
    part[width] = origin + shift;
    part[2 * width] = m2;
}
KERNEL(batch_norm_statistics, f32, bf16)

__device__ inline Moments merge_all(const float* parts, int num_parts, int width, long long channel) {
    Moments all = {0.0f, 0.0f, 0.0f};
    for (int i = 0; i < num_parts; ++i) {
        const float* part = parts + 3ll * i * width + channel;
        all = merged(all, {part[0], part[width], part[2 * width]});
    }
    return all;
}

// The channel of element i of n.
__device__ __forceinline__ int channel_of(long long i, long long n, int width) {
    return n <= 0x7fffffff ? (int)((unsigned)i % (unsigned)width) : (int)(i % width);
}

// y without the bias, before it is rounded to its type, with the same roundings wherever it is computed.
__device__ __forceinline__ float normalized(float x, float mean, float scale) { return __fmul_rn(x - mean, scale); }

template <typename T>
__device__ void batch_norm_apply(
    const T* x,              // (rows, width)
    const float* mean,       // (width)
    const float* deviation,  // (width): 1 / deviation
    const float* weight,     // (width), or null
    const float* bias,       // (width), or null
    T* y,                    // (rows, width)
    long long n, int width, int relu) {
    each_run<T>(n, width, [&](auto size, long long i) {
        constexpr int V = decltype(size)::value;
        const int channel = channel_of(i, n, width);
        const Run<T, V> run = load_run<V>(x + i);
        float means[V], scales[V], factors[V], shifts[V], values[V];
        load_floats(mean + channel, means);
        load_floats(deviation + channel, scales);
        if (weight) load_floats(weight + channel, factors);
        if (bias) load_floats(bias + channel, shifts);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float v = normalized(to_float(run.at[j]), means[j], weight ? scales[j] * factors[j] : scales[j]);
            values[j] = rectified(bias ? v + shifts[j] : v, relu);
        }
        store_run(y + i, values);
    }, x, y, mean, deviation, weight, bias);
}
KERNEL(batch_norm_apply, f32, bf16)

using SumsTable = float[2][8][33];

// Where dy counts: y > 0 if relu is not 0, otherwise everywhere. Weight and bias may be null.
struct ReluOfY {
    const float *weight, *bias;
    int relu;
};

template <int V, typename T>
__device__ __forceinline__ void reduce_rows(const T* x, const float* kept, const T* dy, const ReluOfY& mask, SumsTable& table,
                                            long long rows, int width, int rows_per_part) {
    const Share<V> share = share_of<V>(rows, width, rows_per_part);
    float mean[V], scale[V] = {}, shift[V] = {}, sums[V] = {}, weighted[V] = {};
#pragma unroll
    for (int j = 0; j < V; ++j) {
        const int channel = (int)share.column + j;
        mean[j] = share.column < width ? kept[channel] : 0.0f;
        if (!mask.relu || share.column >= width) continue;
        scale[j] = mask.weight ? kept[width + channel] * mask.weight[channel] : kept[width + channel];
        shift[j] = mask.bias ? mask.bias[channel] : 0.0f;
    }
#pragma unroll 4
    for (long long row = share.first; row < share.end; row += share.STEP) {
        const long long at = row * width + share.column;
        const Run<T, V> input = load_run<V>(x + at), run = load_run<V>(dy + at);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float v = to_float(input.at[j]);
            const float y = to_float(from_float<T>(normalized(v, mean[j], scale[j]) + shift[j]));
            const float gradient = masked(y, to_float(run.at[j]), mask.relu);
            sums[j] += gradient;
            weighted[j] += gradient * (v - mean[j]);
        }
    }
#pragma unroll
    for (int j = 0; j < V; ++j) {
        for (int bits = share.LANES; bits < 32; bits *= 2) {
            sums[j] += __shfl_xor_sync(0xffffffffu, sums[j], bits);
            weighted[j] += __shfl_xor_sync(0xffffffffu, weighted[j], bits);
        }
        if (threadIdx.x % 32 >= share.LANES) continue;
        table[0][threadIdx.x / 32][share.across + j] = sums[j];
        table[1][threadIdx.x / 32][share.across + j] = weighted[j];
    }
}

template <typename T>
__device__ void batch_norm_reduce(
    const T* x,           // (rows, width)
    const float* kept,    // (2, width)
    const T* dy,          // (rows, width): taken as 0 where y <= 0 if relu is not 0
    const float* weight,  // (width), or null; not used without relu
    const float* bias,    // (width), or null; not used without relu
    float* parts,         // (parts, 2, width): sums of dy and of dy xhat
    long long rows, int width, int rows_per_part, int relu) {
    SHARED(SumsTable, table);
    const ReluOfY mask = {weight, bias, relu};
    by_alignment<T>(width, [&](auto size) {
        reduce_rows<decltype(size)::value>(x, kept, dy, mask, table, rows, width, rows_per_part);
    }, x, dy);
    __syncthreads();
    const int lane = threadIdx.x, channel = blockIdx.x * 32 + lane;
    if (lane >= 32 || channel >= width) return;
    float sum = 0.0f, weighted = 0.0f;
    for (int i = 0; i < 8; ++i) {
        sum += table[0][i][lane];
        weighted += table[1][i][lane];
    }
    float* part = parts + 2ll * blockIdx.y * width + channel;
    part[0] = sum;
    part[width] = weighted * kept[width + channel];
}
KERNEL(batch_norm_reduce, f32, bf16)

template <typename T>
__device__ void batch_norm_backward(
    const T* x,           // (rows, width)
    const float* kept,    // (2, width)
    const T* dy,          // (rows, width): taken as 0 where y <= 0 if relu is not 0
    const float* sums,    // (2, width): of the whole batch
    const float* weight,  // (width), or null
    const float* bias,    // (width), or null; not used without relu
    T* dx,                // (rows, width)
    float* dw,            // (width), or null
    float* db,            // (width), if dw is not null
    long long n, int width, float share, int relu) {
    // The sums are also the gradients of weight and bias.
    if (dw)
        for (long long i = thread_index(); i < width; i += (long long)gridDim.x * blockDim.x) {
            dw[i] = sums[width + i];
            db[i] = sums[i];
        }
    each_run<T>(n, width, [&](auto size, long long i) {
        constexpr int V = decltype(size)::value;
        const int channel = channel_of(i, n, width);
        const Run<T, V> input = load_run<V>(x + i), run = load_run<V>(dy + i);
        float means[V], deviations[V], factors[V], shifts[V], plain[V], weighted[V], values[V];
        load_floats(kept + channel, means);
        load_floats(kept + width + channel, deviations);
        if (weight) load_floats(weight + channel, factors);
        if (relu && bias) load_floats(bias + channel, shifts);
        load_floats(sums + channel, plain);
        load_floats(sums + width + channel, weighted);
#pragma unroll
        for (int j = 0; j < V; ++j) {
            const float scale = weight ? deviations[j] * factors[j] : deviations[j];
            float y = 0.0f;
            if (relu)
                y = to_float(from_float<T>(normalized(to_float(input.at[j]), means[j], scale) + (bias ? shifts[j] : 0.0f)));
            const float xhat = (to_float(input.at[j]) - means[j]) * deviations[j];
            const float mean_part = (plain[j] + xhat * weighted[j]) * share;
            values[j] = scale * (masked(y, to_float(run.at[j]), relu) - mean_part);
        }
        store_run(dx + i, values);
    }, x, dy, dx, kept, sums, weight, bias);
}
KERNEL(batch_norm_backward, f32, bf16)

// Stores a channel's mean and 1 / deviation, and updates its running statistics, unless they are not finite or of one
// value, which has no variance.
__device__ __forceinline__ void keep_moments(const Moments& all, float* running_mean, float* running_var, float* kept,
                                             int channel, int width, float momentum, float epsilon) {
    const float variance = all.m2 / fmaxf(all.count - 1.0f, 1.0f);
    if (running_mean && all.count > 1.0f && is_finite(all.mean) && is_finite(variance)) {
        running_mean[channel] += momentum * (all.mean - running_mean[channel]);
        running_var[channel] += momentum * (variance - running_var[channel]);
    }
    kept[channel] = all.mean;
    kept[width + channel] = 1.0f / sqrtf(all.m2 / fmaxf(all.count, 1.0f) + epsilon);
}

using MergeTable = float[3][8][8];

// Merges the parts of a device into one: 8 channels per block, and for each channel 32 threads that read every 32nd part.
// The sums are of differences from the mean of the first part, then of differences from the mean of all.
__device__ void batch_norm_merge(
    const float* parts,   // (parts, 3, width)
    float* part,          // (3, width)
    float* running_mean,  // (width), or null
    float* running_var,   // (width), or null
    float* kept,          // (2, width), as batch_norm_keep writes it if the device has the whole batch; or null
    const unsigned* step, // (1), or null: if not null, the momentum is 1 / step
    int num_parts, int width, float momentum, float epsilon) {
    SHARED(MergeTable, table);
    const int across = threadIdx.x % 8, slice = threadIdx.x / 8, channel = blockIdx.x * 8 + across;
    const int last = channel < width ? num_parts : 0;
    const float* counts = parts + channel;
    const float *means = counts + width, *squares = means + width;
    const float origin = last > 0 ? *means : 0.0f;
    const auto total = [&](int index, float mine) {
        mine = sum_of_lanes(mine, 8);
        if (threadIdx.x % 32 < 8) table[index][threadIdx.x / 32][across] = mine;
        __syncthreads();
        float sum = table[index][0][across];
        for (int i = 1; i < 8; ++i) sum += table[index][i][across];
        return sum;
    };
    float count = 0.0f, shift = 0.0f, m2 = 0.0f;
#pragma unroll 8
    for (int i = slice; i < last; i += 32) {
        const float rows = counts[3ll * i * width];
        count += rows;
        shift += rows * (means[3ll * i * width] - origin);
    }
    count = total(0, count);
    shift = total(1, shift) / fmaxf(count, 1.0f);
#pragma unroll 8
    for (int i = slice; i < last; i += 32) {
        const float delta = means[3ll * i * width] - origin - shift;
        m2 += squares[3ll * i * width] + counts[3ll * i * width] * delta * delta;
    }
    m2 = total(2, m2);
    if (slice > 0 || channel >= width) return;
    part[channel] = count;
    part[width + channel] = origin + shift;
    part[2 * width + channel] = m2;
    if (kept && step) momentum = 1.0f / (float)max(*step, 1u);
    if (kept)
        keep_moments({count, origin + shift, m2}, running_mean, running_var, kept, channel, width, momentum, epsilon);
}
KERNEL(batch_norm_merge)

// One thread per channel: merges the parts of all devices into the batch's mean and 1 / deviation, and updates the
// running statistics.
__device__ void batch_norm_keep(
    const float* parts,   // (devices, 3, width)
    float* running_mean,  // (width), or null if it is frozen
    float* running_var,   // (width), or null
    float* kept,          // (2, width): mean, 1 / deviation
    const unsigned* step, // (1), or null: if not null, the momentum is 1 / step
    int devices, int width, float momentum, float epsilon) {
    const long long channel = thread_index();
    if (channel >= width) return;
    if (step) momentum = 1.0f / (float)max(*step, 1u);
    keep_moments(merge_all(parts, devices, width, channel), running_mean, running_var, kept, (int)channel, width, momentum,
                 epsilon);
}
KERNEL(batch_norm_keep)

// For training by the running statistics; one thread per channel.
__device__ void batch_norm_fixed(
    const float* running_mean,  // (width)
    const float* running_var,   // (width)
    float* kept,                // (2, width): mean, 1 / deviation
    int width, float epsilon) {
    const long long channel = thread_index();
    if (channel >= width) return;
    kept[channel] = running_mean[channel];
    kept[width + channel] = 1.0f / sqrtf(running_var[channel] + epsilon);
}
KERNEL(batch_norm_fixed)

// For evaluation; one thread per channel.
__device__ void batch_norm_deviation(
    const float* running_var,  // (width)
    float* deviation,          // (width): 1 / deviation
    int width, float epsilon) {
    const long long channel = thread_index();
    if (channel < width) deviation[channel] = 1.0f / sqrtf(running_var[channel] + epsilon);
}
KERNEL(batch_norm_deviation)
