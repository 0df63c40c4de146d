// Augments and normalises a batch of raw pixels, as stored in the data set. The random draws for every image are made
// on the host. Each product is rounded separately, as on the CPU, so a batch has the same bits wherever it is prepared.
#include "block.cuh"

// Raw pixels: 8-bit values, or floats if `floats` is not null.
struct Pixels {
    const unsigned char* bytes;
    const float* floats;
    __device__ __forceinline__ float at(long long i) const { return floats ? floats[i] : (float)bytes[i]; }
};

// (x / scale - mean) / std, from a table of scale, means and deviations. Without a table, x stays raw for another step.
__device__ __forceinline__ float normalized(const float* table, int channel, int c, float x) {
    return table ? (x / table[0] - table[1 + channel]) / table[1 + c + channel] : x;
}

// One thread per 16 bytes of y.
template <typename T>
__device__ void augment_normalize(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* table,          // (1 + 2 C)
    T* y,                        // (N, H, W, C)
    long long n, int c) {
    constexpr int V = 16 / sizeof(T);
    const long long i = vector_start<T>();
    if (i >= n) return;
    float values[V];
    if (floats) {
#pragma unroll
        for (int k = 0; k < V; k += 4) {
            const Vector<float> part = load_vector(floats, i + k, n);
#pragma unroll
            for (int j = 0; j < 4; ++j) values[k + j] = part.at[j];
        }
    } else if (i + V <= n && (unsigned long long)(bytes + i) % V == 0) {
        const Run<unsigned char, V> run = load_run<V>(bytes + i);
#pragma unroll
        for (int j = 0; j < V; ++j) values[j] = (float)run.at[j];
    } else {
#pragma unroll
        for (int j = 0; j < V; ++j) values[j] = i + j < n ? (float)bytes[i + j] : 0.0f;
    }
    Vector<T> vector;
    int channel = i % c;
#pragma unroll
    for (int j = 0; j < V; ++j) {
        vector.at[j] = from_float<T>(normalized(table, channel, c, values[j]));
        if (++channel == c) channel = 0;
    }
    store_vector(y, i, n, vector);
}
KERNEL(augment_normalize, f32, bf16)

// y[i + down, j + right] = x[i, j], and 0 where x has no such pixel. One thread per pixel, a row of the grid per image.
template <typename T>
__device__ void augment_shift(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* draws,          // (N, steps, 2), from this step on: down, right
    const float* table,          // (1 + 2 C), or null
    T* y,                        // (N, H, W, C)
    int images, int pixels, int h, int w, int c, int steps) {
    const Pixels x = {bytes, floats};
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= pixels) return;
    const int i = pixel / w, j = pixel % w;
    for (long long image = blockIdx.y; image < images; image += gridDim.y) {
        const float* draw = draws + image * steps * 2;
        const int row = i - (int)draw[0], column = j - (int)draw[1];
        const bool inside = row >= 0 && row < h && column >= 0 && column < w;
        const long long from = ((image * h + row) * w + column) * c, to = (image * pixels + pixel) * c;
#pragma unroll 1
        for (int k = 0; k < c; ++k) y[to + k] = from_float<T>(normalized(table, k, c, inside ? x.at(from + k) : 0.0f));
    }
}
KERNEL(augment_shift, f32, bf16)

// Rotates an image counter-clockwise about ((H - 1) / 2, (W - 1) / 2): y at p is x at p rotated back, interpolated
// bilinearly, and 0 outside the image. One thread per pixel, a row of the grid per image.
template <typename T>
__device__ void augment_rotate(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* draws,          // (N, steps, 2), from this step on: sine, cosine
    const float* table,          // (1 + 2 C), or null
    T* y,                        // (N, H, W, C)
    int images, int pixels, int h, int w, int c, int steps) {
    const Pixels x = {bytes, floats};
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= pixels) return;
    const float middle_i = (float)(h - 1) / 2.0f, middle_j = (float)(w - 1) / 2.0f;
    const float di = (float)(pixel / w) - middle_i, dj = (float)(pixel % w) - middle_j;
    const auto clamped = [](float at, float last) { return at < 0.0f ? 0.0f : at > last ? last : at; };
    for (long long image = blockIdx.y; image < images; image += gridDim.y) {
        const float sine = draws[image * steps * 2], cosine = draws[image * steps * 2 + 1];
        // Coordinates include a black frame of one pixel, to which points farther outside are clamped.
        const float at_i = __fmul_rn(sine, dj) + __fmul_rn(cosine, di) + middle_i + 1.0f;
        const float at_j = __fmul_rn(cosine, dj) - __fmul_rn(sine, di) + middle_j + 1.0f;
        const float i = clamped(at_i, (float)(h + 1)), j = clamped(at_j, (float)(w + 1));
        const int top = (int)i, left = (int)j;
        const float down = i - (float)top, right = j - (float)left;
        const bool rows[2] = {top >= 1 && top <= h, top < h}, columns[2] = {left >= 1 && left <= w, left < w};
        const long long from = ((image * h + top - 1) * w + left - 1) * c, to = (image * pixels + pixel) * c;
        const long long below = (long long)w * c;
        for (int k = 0; k < c; ++k) {
            const auto neighbour = [&](int row, int column) {
                return rows[row] && columns[column] ? x.at(from + row * below + column * c + k) : 0.0f;
            };
            const auto mixed = [](float share, float first, float second) {
                return __fmul_rn(1.0f - share, first) + __fmul_rn(share, second);
            };
            const float upper = mixed(right, neighbour(0, 0), neighbour(0, 1));
            const float lower = mixed(right, neighbour(1, 0), neighbour(1, 1));
            y[to + k] = from_float<T>(normalized(table, k, c, mixed(down, upper, lower)));
        }
    }
}
KERNEL(augment_rotate, f32, bf16)
