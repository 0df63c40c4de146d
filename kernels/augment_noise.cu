// Gaussian noise, to the bits of the host: every operation is rounded on its own.
#include "augment.cuh"
#include "philox.cuh"

// a x + b
__device__ __forceinline__ float linear(float a, float x, float b) { return __fmul_rn(a, x) + b; }

// The natural logarithm of a positive normal number.
__device__ __forceinline__ float logarithm(float x) {
    const unsigned bits = __float_as_uint(x);
    const float mantissa = __uint_as_float((bits & 0x7fffffu) | 0x3f800000u);
    const bool large = mantissa > 1.41421356f;
    const float m = large ? mantissa * 0.5f : mantissa;
    const int exponent = (int)(bits >> 23) - (large ? 126 : 127);
    const float s = (m - 1.0f) / (m + 1.0f), z = __fmul_rn(s, s);
    const float series = linear(linear(linear(linear(z, 1.0f / 9.0f, 1.0f / 7.0f), z, 0.2f), z, 1.0f / 3.0f), z, 1.0f);
    return __fmul_rn((float)exponent, 0.693147182f) + __fmul_rn(__fmul_rn(2.0f, s), series);
}

// The quantile of the normal distribution at (k + 1/2) / 2^23, where k are the upper 23 bits of a word (Wichura 1988, AS 241).
__device__ __forceinline__ float normal(unsigned word) {
    const float p = ((float)(word >> 9) + 0.5f) * (1.0f / 8388608.0f), q = p - 0.5f;
    if (fabsf(q) <= 0.425f) {
        const float r = 0.180625f - __fmul_rn(q, q);
        const float a = linear(linear(linear(59.109374720f, r, 159.29113202f), r, 50.434271938f), r, 3.3871327179f);
        const float b = linear(linear(linear(67.187563600f, r, 78.757757664f), r, 17.895169469f), r, 1.0f);
        return __fmul_rn(q, a) / b;
    }
    const float r = sqrtf(-logarithm(q < 0.0f ? p : 1.0f - p)) - 1.6f;
    const float c = linear(linear(linear(0.17023821103f, r, 1.3067284816f), r, 2.7568153900f), r, 1.4234372777f);
    const float d = linear(linear(0.12021132975f, r, 0.73700164250f), r, 1.0f);
    return q < 0.0f ? -(c / d) : c / d;
}

// y = x + s z. Words are those of the image's key, value i has word i % 4 of counter i / 4. One thread per pixel, a row of the grid per
// image.
template <typename T>
__device__ void augment_noise(
    const unsigned char* bytes,  // (N, H, W, C), or null
    const float* floats,         // (N, H, W, C), or null
    const float* draws,          // (N, stride), from its values on: the key in parts of 16 bits, s
    const float* table,          // (2 + 2 M), or null
    T* y,                        // (N, H, W, C)
    int images, int h, int w, int c, int stride) {
    const Pixels x = {bytes, floats};
    const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
    if (pixel >= h * w) return;
    for (long long image = blockIdx.y; image < images; image += gridDim.y) {
        const float* draw = draws + image * stride;
        const auto part = [&](int i) { return (unsigned)draw[i] | (unsigned)draw[i + 1] << 16; };
        const Philox random = {part(0), part(2), 0, 0};
        const long long first = image * (h * w) * c;
        for (long long i = (long long)pixel * c; i < ((long long)pixel + 1) * c; ++i) {
            const uint4 words = random.words(i / 4);
            const int lane = (int)(i % 4);
            const unsigned word = lane < 2 ? (lane ? words.y : words.x) : lane == 2 ? words.z : words.w;
            const float value = x.at(first + i) + __fmul_rn(draw[4], normal(word));
            y[first + i] = from_float<T>(normalized(table, (int)i, value));
        }
    }
}
KERNEL(augment_noise, f32, bf16)
