// Convolution whose filters see one channel each: output q of a run of groups reads channel q / outputs. There is too little
// to multiply for tiles; each thread adds its own products. Pointers are to the first channel of the first group, strides
// are the whole tensors'.
#include "block.cuh"

struct Depthwise {
    int n, h, w, c;     // the input: samples, image, channels held
    int oh, ow, o;      // the output image, channels held
    int kh, kw;         // a filter
    int stride_h, stride_w, pad_h, pad_w;
    int outputs, groups;  // of a group; groups of the run
};

// One thread per element of the run's y.
template <typename T>
__device__ void depthwise_y(const T* x, const T* w, const float* bias, T* y, const Depthwise& d, int relu) {
    const long long i = thread_index();
    const int run = d.outputs * d.groups;
    const long long pixel = i / run, line = pixel / d.ow, sample = line / d.oh;
    if (sample >= d.n) return;
    const int q = (int)(i - pixel * run);
    const int top = (int)(line - sample * d.oh) * d.stride_h - d.pad_h, left = (int)(pixel - line * d.ow) * d.stride_w - d.pad_w;
    x += sample * d.h * d.w * d.c + q / d.outputs;
    w += (long long)q * d.kh * d.kw;
    float sum = bias ? bias[q] : 0.0f;
    for (int kh = max(0, -top); kh < min(d.kh, d.h - top); ++kh)
        for (int kw = max(0, -left); kw < min(d.kw, d.w - left); ++kw)
            sum += to_float(x[((long long)(top + kh) * d.w + left + kw) * d.c]) * to_float(w[kh * d.kw + kw]);
    y[pixel * d.o + q] = from_float<T>(rectified(sum, relu));
}

// One thread per element of the run's dx.
template <typename T> __device__ void depthwise_dx(const T* dy, const T* w, T* dx, const Depthwise& d) {
    const long long i = thread_index(), pixel = i / d.groups, line = pixel / d.w, sample = line / d.h;
    if (sample >= d.n) return;
    const int group = (int)(i - pixel * d.groups);
    const int row = (int)(line - sample * d.h) + d.pad_h, column = (int)(pixel - line * d.w) + d.pad_w;
    dy += sample * d.oh * d.ow * d.o + group * d.outputs;
    w += (long long)group * d.outputs * d.kh * d.kw;
    float sum = 0.0f;
    for (int kh = row % d.stride_h; kh < d.kh && kh <= row; kh += d.stride_h) {
        const int oh = (row - kh) / d.stride_h;
        if (oh >= d.oh) continue;
        for (int kw = column % d.stride_w; kw < d.kw && kw <= column; kw += d.stride_w) {
            const int ow = (column - kw) / d.stride_w;
            if (ow >= d.ow) continue;
            const T *gradient = dy + ((long long)oh * d.ow + ow) * d.o, *tap = w + kh * d.kw + kw;
            for (int q = 0; q < d.outputs; ++q)
                sum += to_float(gradient[q]) * to_float(tap[(long long)q * d.kh * d.kw]);
        }
    }
    dx[pixel * d.c + group] = from_float<T>(sum);
}

// A block sums one tap (grid y) of 32 outputs (grid x) over a part of the output pixels (grid z), eight at a time.
template <typename T>
__device__ void depthwise_dw(const T* x, const T* dy, float* dw, const Depthwise& d, int pixels_per_part) {
    using Parts = float[8][33];
    SHARED(Parts, parts);
    const int lane = threadIdx.x % 32, group = threadIdx.x / 32, q = blockIdx.x * 32 + lane;
    const int kh = blockIdx.y / d.kw, kw = blockIdx.y % d.kw, begin = blockIdx.z * pixels_per_part;
    const int end = min(d.n * d.oh * d.ow, begin + pixels_per_part);
    const bool mine = q < d.outputs * d.groups;
    float sum = 0.0f;
    for (int pixel = begin + group; mine && pixel < end; pixel += 8) {
        const int line = pixel / d.ow, sample = line / d.oh;
        const int row = (line - sample * d.oh) * d.stride_h - d.pad_h + kh;
        const int column = (pixel - line * d.ow) * d.stride_w - d.pad_w + kw;
        if ((unsigned)row >= (unsigned)d.h || (unsigned)column >= (unsigned)d.w) continue;
        const long long at = (((long long)sample * d.h + row) * d.w + column) * d.c + q / d.outputs;
        sum += to_float(dy[(long long)pixel * d.o + q]) * to_float(x[at]);
    }
    parts[group][lane] = sum;
    __syncthreads();
    if (group > 0 || !mine) return;
    for (int i = 1; i < 8; ++i) sum += parts[i][lane];
    dw[((long long)blockIdx.z * d.o + q) * d.kh * d.kw + blockIdx.y] = sum;
}

template <typename T>
__device__ void conv_depthwise_forward(
    const T* x,         // (N, H, W, C)
    const T* w,         // (O, KH, KW, 1)
    const float* bias,  // (O), or null
    T* y,               // (N, OH, OW, O)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int stride_h, int stride_w, int pad_h,
    int pad_w, int outputs, int groups, int relu) {
    depthwise_y(x, w, bias, y, {n, h, width, c, oh, ow, o, kh, kw, stride_h, stride_w, pad_h, pad_w, outputs, groups}, relu);
}
KERNEL(conv_depthwise_forward, f32, bf16)

template <typename T>
__device__ void conv_depthwise_backward_input(
    const T* dy,  // (N, OH, OW, O)
    const T* w,   // (O, KH, KW, 1)
    T* dx,        // (N, H, W, C)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int stride_h, int stride_w, int pad_h,
    int pad_w, int outputs, int groups) {
    depthwise_dx(dy, w, dx, {n, h, width, c, oh, ow, o, kh, kw, stride_h, stride_w, pad_h, pad_w, outputs, groups});
}
KERNEL(conv_depthwise_backward_input, f32, bf16)

template <typename T>
__device__ void conv_depthwise_backward_weight(
    const T* x,   // (N, H, W, C)
    const T* dy,  // (N, OH, OW, O)
    float* dw,    // (parts, O, KH, KW, 1)
    int n, int h, int width, int c, int oh, int ow, int o, int kh, int kw, int stride_h, int stride_w, int pad_h,
    int pad_w, int outputs, int groups, int pixels_per_part) {
    depthwise_dw(x, dy, dw, {n, h, width, c, oh, ow, o, kh, kw, stride_h, stride_w, pad_h, pad_w, outputs, groups}, pixels_per_part);
}
KERNEL(conv_depthwise_backward_weight, f32, bf16)
