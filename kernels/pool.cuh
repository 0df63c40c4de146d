// Pooling windows: which pixels of the input an output covers, and which outputs cover a pixel.
#pragma once
#include "block.cuh"

struct PoolGeometry {
    int h, w, c;  // the input: image, channels on this device
    int oh, ow;   // the output image
    int kh, kw;   // a window
    int stride_h, stride_w, pad_h, pad_w;
    int after_h, after_w;  // padding below and to the right
};

// An element of a tensor (N, H, W, C).
struct Element {
    long long sample;
    int row, column, channel;
};
__device__ __forceinline__ Element element_at(long long i, int h, int w, int c) {
    // A 64-bit division is a function call with extra registers; indices within a sample fit in 32 bits.
    const int image = h * w * c;
    const long long sample = i / image;
    const int rest = (int)(i - sample * image), pixel = rest / c, row = pixel / w;
    return {sample, row, pixel - row * w, rest - pixel * c};
}

// The first output whose window may contain index i: windows begin at o stride - pad.
__device__ __forceinline__ int first_output(int i, int kernel, int stride, int pad) {
    return max(0, (i + pad - kernel + stride) / stride);
}
// One past the last such output.
__device__ __forceinline__ int end_output(int i, int stride, int pad, int outputs) {
    return min(outputs, (i + pad) / stride + 1);
}

// A position in a window as an element. In bf16, which has few exact integers, the position is in the bits, where those
// of infinity and NaN are left out; this suffices for 65280 positions.
template <typename T> __device__ __forceinline__ float place_code(int place) {
    if (sizeof(T) == sizeof(float)) return (float)place;
    return __uint_as_float((unsigned)(place < 0x7f80 ? place : place - 0x7f80 + 0x8000) << 16);
}
