// Normalisation of units: the values of one group of channels in all pixels of one sample. Up to 2048 values are processed by a
// warp, more by a block of 256 threads. Statistics are (samples, 2, groups): mean and 1 / deviation.
#include "columns.cuh"

struct UnitGeometry {
    long long samples;
    int pixels, c, groups;
    int by_warp;
};

// The unit of a thread, and its share of the values.
struct Unit {
    long long sample, first;  // first: the first value
    int group, each, size, lane, step;
    bool exists;
    __device__ Unit(const UnitGeometry& g) {
        const long long unit = g.by_warp ? blockIdx.x * 8ll + threadIdx.x / 32 : blockIdx.x;
        lane = g.by_warp ? threadIdx.x % 32 : threadIdx.x;
        step = g.by_warp ? 32 : 256;
        exists = unit < g.samples * g.groups;
        sample = unit / g.groups;
        group = (int)(unit - sample * g.groups);
        each = g.c / g.groups;
        size = g.pixels * each;
        first = sample * g.pixels * g.c + group * each;
    }
    // The channel within the group of value i.
    __device__ int channel(int i) const { return i % each; }
    __device__ long long at(int i, int c) const { return first + (long long)(i / each) * c + i % each; }
};

__device__ __forceinline__ float unit_sum(float x, int by_warp) { return by_warp ? warp_sum(x) : block_sum(x); }

template <typename T>
__device__ void unit_norm_forward(
    const T* x,      // (samples, pixels, c)
    const float* w,  // (c), or null
    const float* b,  // (c), or null
    T* y,            // (samples, pixels, c)
    float* stats,    // (samples, 2, groups), or null
    float epsilon, UnitGeometry g) {
    const Unit unit(g);
    if (!unit.exists) return;
    float sum = 0.0f;
    for (int i = unit.lane; i < unit.size; i += unit.step) sum += to_float(x[unit.at(i, g.c)]);
    const float mean = unit_sum(sum, g.by_warp) / unit.size;
    float squares = 0.0f;
    for (int i = unit.lane; i < unit.size; i += unit.step) {
        const float d = to_float(x[unit.at(i, g.c)]) - mean;
        squares += d * d;
    }
    const float inverse = 1.0f / sqrtf(unit_sum(squares, g.by_warp) / unit.size + epsilon);
    for (int i = unit.lane; i < unit.size; i += unit.step) {
        const int channel = unit.group * unit.each + unit.channel(i);
        const float value = (to_float(x[unit.at(i, g.c)]) - mean) * inverse;
        y[unit.at(i, g.c)] = from_float<T>(value * (w ? w[channel] : 1.0f) + (b ? b[channel] : 0.0f));
    }
    if (stats && unit.lane == 0) {
        float* own = stats + unit.sample * 2 * g.groups + unit.group;
        own[0] = mean;
        own[g.groups] = inverse;
    }
}
KERNEL(unit_norm_forward, f32, bf16)

template <typename T>
__device__ void unit_norm_backward(
    const T* x,          // (samples, pixels, c)
    const float* stats,  // (samples, 2, groups)
    const float* w,      // (c), or null
    const T* dy,         // (samples, pixels, c)
    T* dx,               // (samples, pixels, c)
    UnitGeometry g) {
    const Unit unit(g);
    if (!unit.exists) return;
    const float* own = stats + unit.sample * 2 * g.groups + unit.group;
    const float mean = own[0], inverse = own[g.groups];
    const auto gradient = [&](int i) {
        return to_float(dy[unit.at(i, g.c)]) * (w ? w[unit.group * unit.each + unit.channel(i)] : 1.0f);
    };
    float sum = 0.0f, weighted = 0.0f;
    for (int i = unit.lane; i < unit.size; i += unit.step) {
        const float d = gradient(i);
        sum += d;
        weighted += d * (to_float(x[unit.at(i, g.c)]) - mean);
    }
    sum = unit_sum(sum, g.by_warp) / unit.size;
    weighted = unit_sum(weighted, g.by_warp) / unit.size * inverse * inverse;
    for (int i = unit.lane; i < unit.size; i += unit.step) {
        const float centred = to_float(x[unit.at(i, g.c)]) - mean;
        dx[unit.at(i, g.c)] = from_float<T>(inverse * (gradient(i) - sum - centred * weighted));
    }
}
KERNEL(unit_norm_backward, f32, bf16)

// The gradients of the weights of 32 channels (grid x) over a part of the rows (grid y): sums of dy (x - mean) / deviation.
template <typename T>
__device__ void unit_norm_weights(
    const T* x,          // (samples * pixels, c)
    const float* stats,  // (samples, 2, groups)
    const T* dy,         // (samples * pixels, c)
    float* sums,         // (parts, c)
    int rows_per_part, UnitGeometry g) {
    const long long rows = g.samples * g.pixels, begin = (long long)blockIdx.y * rows_per_part;
    const int each = g.c / g.groups;
    const float sum = column_sum_of(blockIdx.x, begin, min(rows, begin + rows_per_part), g.c, [&](long long row, long long column) {
        const float* own = stats + row / g.pixels * 2 * g.groups + (int)column / each;
        const long long i = row * g.c + column;
        return to_float(dy[i]) * (to_float(x[i]) - own[0]) * own[g.groups];
    });
    const long long column = blockIdx.x * 32ll + threadIdx.x;
    if (threadIdx.x < 32 && column < g.c) sums[blockIdx.y * (long long)g.c + column] = sum;
}
KERNEL(unit_norm_weights, f32, bf16)
