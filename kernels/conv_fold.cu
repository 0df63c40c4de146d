// Convolutions of images with few channels in bf16: strides become channels, and channels are padded with zeros to a
// multiple of 8, so that products read 16 bytes at a time. With f = min(stride, kernel) along each axis,
//
//   x'[n, i, j, (a f_w + b) C + c] = x[n, i stride_h + a - pad_h, j stride_w + b - pad_w, c],
//   w'[o, i, j, (a f_w + b) C + c] = w[o, i f_h + a, j f_w + b, c],
//
// and y is the convolution of x' with w' with stride 1 and without padding.
#include "block.cuh"
#include "conv.cuh"

// The folded geometry.
struct Folds {
    int h, w, channels, kh, kw;
    __device__ explicit Folds(const ConvGeometry& g)
        : h(min(g.stride_h, g.kh)), w(min(g.stride_w, g.kw)), channels((h * w * g.c + 7) / 8 * 8),
          kh((g.kh + h - 1) / h), kw((g.kw + w - 1) / w) {}
};

// A channel of x' or w', as channel c of the tap (a, b).
struct FoldedChannel {
    int a, b, c;
    __device__ FoldedChannel(int q, const Folds& f, const ConvGeometry& g) {
        const int tap = q / g.c;
        c = q - tap * g.c;
        a = tap / f.w;
        b = tap - a * f.w;
    }
    __device__ void next(const Folds& f, const ConvGeometry& g) {
        if (++c < g.c) return;
        c = 0;
        if (++b < f.w) return;
        b = 0;
        ++a;
    }
};

// One thread per 8 channels.
__device__ void conv_fold_images(
    const __nv_bfloat16* x,  // (N, H, W, C)
    __nv_bfloat16* folded,   // (N, OH + KH' - 1, OW + KW' - 1, C')
    ConvGeometry g) {
    const Folds f(g);
    const long long i = thread_index();
    const int across = f.channels / 8, columns = g.ow + f.kw - 1, rows = g.oh + f.kh - 1;
    const long long pixel = i / across, line = pixel / columns, sample = line / rows;
    if (sample >= g.n) return;
    const int top = (int)(line - sample * rows) * g.stride_h - g.pad_h;
    const int left = (int)(pixel - line * columns) * g.stride_w - g.pad_w;
    FoldedChannel q((int)(i - pixel * across) * 8, f, g);
    x += sample * g.h * g.w * g.c;
    Run<bf16, 8> run;
#pragma unroll
    for (int v = 0; v < 8; ++v) {
        const int row = top + q.a, column = left + q.b;
        const bool inside = q.a < f.h && (unsigned)row < (unsigned)g.h && (unsigned)column < (unsigned)g.w;
        run.at[v] = inside ? x[((long long)row * g.w + column) * g.c + q.c] : from_float<bf16>(0.0f);
        q.next(f, g);
    }
    *(Run<bf16, 8>*)(folded + i * 8) = run;
}
KERNEL(conv_fold_images)

// One thread per element of w'.
__device__ void conv_fold_filters(
    const __nv_bfloat16* w,  // (O, KH, KW, C)
    __nv_bfloat16* folded,   // (O, KH', KW', C')
    ConvGeometry g) {
    const Folds f(g);
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const int place = i / f.channels, line = place / f.kw, o = line / f.kh;
    if (o >= g.o) return;
    const FoldedChannel q(i - place * f.channels, f, g);
    const int row = (line - o * f.kh) * f.h + q.a, column = (place - line * f.kw) * f.w + q.b;
    const bool inside = q.a < f.h && row < g.kh && column < g.kw;
    folded[i] = inside ? w[((long long)(o * g.kh + row) * g.kw + column) * g.c + q.c] : from_float<bf16>(0.0f);
}
KERNEL(conv_fold_filters)

// One thread per element of dw: the sum of its element in all parts, in order.
template <typename T>
__device__ void conv_unfold_filters(
    const T* parts,  // (parts, O, KH', KW', C')
    float* dw,       // (O, KH, KW, C)
    ConvGeometry g, int count) {
    const Folds f(g);
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const int place = i / g.c, line = place / g.kw, o = line / g.kh;
    if (o >= g.o) return;
    const int row = line - o * g.kh, column = place - line * g.kw, c = i - place * g.c;
    const int q = (row % f.h * f.w + column % f.w) * g.c + c;
    const long long at = ((long long)(o * f.kh + row / f.h) * f.kw + column / f.w) * f.channels + q;
    const long long part = (long long)g.o * f.kh * f.kw * f.channels;
    float sum = 0.0f;
    for (int p = 0; p < count; ++p) sum += to_float(parts[p * part + at]);
    dw[i] = sum;
}
KERNEL(conv_unfold_filters, f32, bf16)
