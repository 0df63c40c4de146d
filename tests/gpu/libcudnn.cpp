// A cuDNN for tests: the calls that src/gpu/libraries/convolutions.rs makes, as plain loops that run when the
// stream of the stand-in driver comes to them. What breaks the contract of cudnn.h ends the process.
//
// FAKE_CUDNN_FAILS: "create" or "convolution" for calls that fail, "refuses" for a heuristic that knows nothing,
// "lacks" for one whose part of the library is missing.
// FAKE_CUDNN_ORDER: "backwards" for a heuristic that prefers other algorithms.
#include "library.h"

enum { OK = 0, NOT_INITIALIZED = 1001, NOT_SUPPORTED_SHAPE = 3002, SUBLIBRARY_UNAVAILABLE = 3009, EXECUTION_FAILED = 5000 };
enum { FLOAT = 0, BFLOAT16 = 9, NHWC = 1 };
enum { DEFAULT_MATH = 0, TENSOR_OP_MATH = 1, ALLOW_CONVERSION = 2, FMA_MATH = 3 };

struct Handle {
    void* stream = nullptr;
};
struct Tensor {
    int type = -1, n = 0, c = 0, h = 0, w = 0;
    size_t count() const { return size_t(n) * c * h * w; }
};
struct Window {
    int pad_h, pad_w, step_h, step_w, dilation_h, dilation_w, groups = 1, math = DEFAULT_MATH;
};
struct Found {
    int algorithm, status;
    float milliseconds;
    size_t memory;
    int deterministic, math, reserved[3];
};
static_assert(sizeof(Found) == 48);

static Living<Handle> handles;
static Living<Tensor> tensors, filters;
static Living<Window> windows;

extern "C" size_t cudnnGetVersion() { return 91002; }
extern "C" const char* cudnnGetErrorString(int status) {
    return status == NOT_SUPPORTED_SHAPE ? "CUDNN_STATUS_NOT_SUPPORTED_SHAPE" : "CUDNN_STATUS_EXECUTION_FAILED";
}
API cudnnCreate(void** handle) {
    return asked("FAKE_CUDNN_FAILS", "create") ? int(NOT_INITIALIZED) : handles.make(handle);
}
API cudnnDestroy(void* handle) { return handles.destroy(handle); }
API cudnnSetStream(void* handle, void* stream) {
    handles.at(handle).stream = stream;
    return OK;
}
API cudnnCreateTensorDescriptor(void** to) { return tensors.make(to); }
API cudnnDestroyTensorDescriptor(void* handle) { return tensors.destroy(handle); }
API cudnnSetTensor4dDescriptor(void* handle, int format, int type, int n, int c, int h, int w) {
    MUST(format == NHWC && (type == FLOAT || type == BFLOAT16) && n > 0 && c > 0 && h > 0 && w > 0);
    tensors.at(handle) = {type, n, c, h, w};
    return OK;
}
API cudnnCreateFilterDescriptor(void** to) { return filters.make(to); }
API cudnnDestroyFilterDescriptor(void* handle) { return filters.destroy(handle); }
API cudnnSetFilter4dDescriptor(void* handle, int type, int format, int k, int c, int h, int w) {
    MUST(format == NHWC && (type == FLOAT || type == BFLOAT16) && k > 0 && c > 0 && h > 0 && w > 0);
    filters.at(handle) = {type, k, c, h, w};
    return OK;
}
API cudnnCreateConvolutionDescriptor(void** to) { return windows.make(to); }
API cudnnDestroyConvolutionDescriptor(void* handle) { return windows.destroy(handle); }
API cudnnSetConvolution2dDescriptor(void* handle, int pad_h, int pad_w, int step_h, int step_w, int dilation_h,
                                    int dilation_w, int mode, int compute) {
    MUST(pad_h >= 0 && pad_w >= 0 && step_h > 0 && step_w > 0 && dilation_h > 0 && dilation_w > 0);
    MUST(mode == 1 && compute == FLOAT);
    windows.at(handle) = {pad_h, pad_w, step_h, step_w, dilation_h, dilation_w};
    return OK;
}
API cudnnSetConvolutionGroupCount(void* handle, int groups) {
    MUST(groups > 0);
    windows.at(handle).groups = groups;
    return OK;
}
API cudnnSetConvolutionMathType(void* handle, int math) {
    MUST(math >= DEFAULT_MATH && math <= FMA_MATH);
    windows.at(handle).math = math;
    return OK;
}

// A convolution whose descriptors fit together.
struct Convolution {
    Tensor x, w, y;
    Window window;
    Element element;
    int depth, outputs;  // of a group
};
static Convolution read(void* x, void* w, void* window, void* y) {
    Convolution c = {tensors.at(x), filters.at(w), tensors.at(y), windows.at(window)};
    const Window& s = c.window;
    MUST(c.x.type == c.w.type && c.x.type == c.y.type);
    MUST(c.x.c % s.groups == 0 && c.w.n % s.groups == 0 && c.w.c == c.x.c / s.groups);
    MUST(c.y.n == c.x.n && c.y.c == c.w.n);
    const int reach_h = (c.w.h - 1) * s.dilation_h + 1, reach_w = (c.w.w - 1) * s.dilation_w + 1;
    MUST(c.y.h == (c.x.h + 2 * s.pad_h - reach_h) / s.step_h + 1);
    MUST(c.y.w == (c.x.w + 2 * s.pad_w - reach_w) / s.step_w + 1);
    // Nothing asks for bf16 without tensor cores: cuDNN would answer with kernels that do not use them.
    MUST(c.x.type != BFLOAT16 || s.math == TENSOR_OP_MATH);
    c.element = c.x.type == BFLOAT16 ? BF16 : s.math == FMA_MATH ? F32 : TF32;
    c.depth = c.w.c;
    c.outputs = c.w.n / s.groups;
    return c;
}

// In the order of the heuristic's preference; the same numbers serve all three passes.
static const Found ALGORITHMS[] = {
    {7, NOT_SUPPORTED_SHAPE, -1, 0, 1, DEFAULT_MATH, {}},
    {2, OK, 1, 0, 0, DEFAULT_MATH, {}},               // atomic additions: not the same bits every time
    {3, OK, 2, 0, 1, ALLOW_CONVERSION, {}},           // rounds more than it is told to
    {4, OK, 3, size_t(1) << 30, 1, DEFAULT_MATH, {}},  // needs more workspace than it is given
    {1, OK, 4, 1 << 16, 1, DEFAULT_MATH, {}},
    {0, OK, 5, 0, 1, DEFAULT_MATH, {}},
};
static int choose(const Convolution& c, int most, int* count, Found* found) {
    *count = 0;
    if (asked("FAKE_CUDNN_FAILS", "refuses")) return NOT_SUPPORTED_SHAPE;
    if (asked("FAKE_CUDNN_FAILS", "lacks")) return SUBLIBRARY_UNAVAILABLE;
    const int known = sizeof ALGORITHMS / sizeof *ALGORITHMS;
    for (int i = 0; i < known && *count < most; ++i)
        found[(*count)++] = ALGORITHMS[asked("FAKE_CUDNN_ORDER", "backwards") ? known - 1 - i : i];
    if (c.element == BF16)
        for (int i = 0; i < *count; ++i)
            if (found[i].math == DEFAULT_MATH) found[i].math = TENSOR_OP_MATH;
    return OK;
}
API cudnnGetConvolutionForwardAlgorithm_v7(void* handle, void* x, void* w, void* window, void* y, int most, int* count,
                                           Found* found) {
    handles.at(handle);
    return choose(read(x, w, window, y), most, count, found);
}
API cudnnGetConvolutionBackwardDataAlgorithm_v7(void* handle, void* w, void* y, void* window, void* x, int most,
                                                int* count, Found* found) {
    handles.at(handle);
    return choose(read(x, w, window, y), most, count, found);
}
API cudnnGetConvolutionBackwardFilterAlgorithm_v7(void* handle, void* x, void* y, void* window, void* w, int most,
                                                  int* count, Found* found) {
    handles.at(handle);
    return choose(read(x, w, window, y), most, count, found);
}
static int size(int algorithm, size_t* bytes) {
    for (const Found& one : ALGORITHMS)
        if (one.algorithm == algorithm && one.status == OK) {
            *bytes = one.memory;
            return OK;
        }
    return NOT_SUPPORTED_SHAPE;
}
API cudnnGetConvolutionForwardWorkspaceSize(void* handle, void* x, void* w, void* window, void* y, int algorithm,
                                            size_t* bytes) {
    handles.at(handle);
    read(x, w, window, y);
    return size(algorithm, bytes);
}
API cudnnGetConvolutionBackwardDataWorkspaceSize(void* handle, void* w, void* y, void* window, void* x, int algorithm,
                                                 size_t* bytes) {
    handles.at(handle);
    read(x, w, window, y);
    return size(algorithm, bytes);
}
API cudnnGetConvolutionBackwardFilterWorkspaceSize(void* handle, void* x, void* y, void* window, void* w, int algorithm,
                                                   size_t* bytes) {
    handles.at(handle);
    read(x, w, window, y);
    return size(algorithm, bytes);
}

// Visits every pair of an input and a weight that meet in output (n, i, j, o).
template <typename F> static void meet(const Convolution& c, int n, int i, int j, int o, bool backwards, F&& visit) {
    const int group = o / c.outputs, taps = c.w.h * c.w.w * c.depth;
    for (int t = 0; t < taps; ++t) {
        const int tap = int(term(t, taps, backwards));
        const int a = tap / (c.w.w * c.depth), b = tap / c.depth % c.w.w, channel = tap % c.depth;
        const int h = i * c.window.step_h - c.window.pad_h + a * c.window.dilation_h;
        const int w = j * c.window.step_w - c.window.pad_w + b * c.window.dilation_w;
        if (h < 0 || h >= c.x.h || w < 0 || w >= c.x.w) continue;
        visit(((size_t(n) * c.x.h + h) * c.x.w + w) * c.x.c + group * c.depth + channel, size_t(o) * taps + tap);
    }
}

// Which of the three is the result.
enum Result { Y, X, W };
static int run(Handle& handle, Result which, const Convolution& c, const void* x, const void* w, const void* y,
               int algorithm, void* workspace, size_t bytes, const float* alpha, const float* beta) {
    size_t needed = 0;
    MUST(size(algorithm, &needed) == OK && needed <= bytes && holds(workspace, bytes));
    MUST(handle.stream && *alpha == 1.0f && *beta == 0.0f);
    for (const auto& [at, tensor] : {std::pair{x, &c.x}, {w, &c.w}, {y, &c.y}})
        MUST(holds(at, tensor->count() * size_of(c.element)) && reinterpret_cast<uint64_t>(at) % 16 == 0);
    if (asked("FAKE_CUDNN_FAILS", "convolution")) return EXECUTION_FAILED;
    const bool backwards = algorithm == 0;
    return issue(handle.stream, [=] {
        memset(workspace, 0xff, needed);
        const Tensor& result = which == Y ? c.y : which == X ? c.x : c.w;
        std::unique_ptr<float[]> sums(new float[result.count()]());
        for (int n = 0; n < c.x.n; ++n)
            for (int i = 0; i < c.y.h; ++i)
                for (int j = 0; j < c.y.w; ++j)
                    for (int o = 0; o < c.y.c; ++o) {
                        const size_t at = ((size_t(n) * c.y.h + i) * c.y.w + j) * c.y.c + o;
                        meet(c, n, i, j, o, backwards, [&](size_t from, size_t weight) {
                            const auto value = [&](const void* of, size_t i) { return load(of, i, c.element); };
                            if (which == Y) sums[at] += value(x, from) * value(w, weight);
                            else if (which == X) sums[from] += value(y, at) * value(w, weight);
                            else sums[weight] += value(x, from) * value(y, at);
                        });
                    }
        void* to = const_cast<void*>(which == Y ? y : which == X ? x : w);
        for (size_t i = 0; i < result.count(); ++i) store(to, i, sums[i], c.element);
    });
}
API cudnnConvolutionForward(void* handle, const float* alpha, void* x_layout, const void* x, void* w_layout,
                            const void* w, void* window, int algorithm, void* workspace, size_t bytes,
                            const float* beta, void* y_layout, void* y) {
    const Convolution c = read(x_layout, w_layout, window, y_layout);
    return run(handles.at(handle), Y, c, x, w, y, algorithm, workspace, bytes, alpha, beta);
}
API cudnnConvolutionBackwardData(void* handle, const float* alpha, void* w_layout, const void* w, void* y_layout,
                                 const void* y, void* window, int algorithm, void* workspace, size_t bytes,
                                 const float* beta, void* x_layout, void* x) {
    const Convolution c = read(x_layout, w_layout, window, y_layout);
    return run(handles.at(handle), X, c, x, w, y, algorithm, workspace, bytes, alpha, beta);
}
API cudnnConvolutionBackwardFilter(void* handle, const float* alpha, void* x_layout, const void* x, void* y_layout,
                                   const void* y, void* window, int algorithm, void* workspace, size_t bytes,
                                   const float* beta, void* w_layout, void* w) {
    const Convolution c = read(x_layout, w_layout, window, y_layout);
    return run(handles.at(handle), W, c, x, w, y, algorithm, workspace, bytes, alpha, beta);
}
