// A cuBLASLt for tests: the calls that src/gpu/libraries/products.rs makes, as plain loops that run when the
// stream of the stand-in driver comes to them. What breaks the contract of cublasLt.h ends the process.
//
// FAKE_LT_VERSION: what cublasLtGetVersion answers. FAKE_LT_FAILS: "create" or "matmul" for calls that fail, "refuses"
// for a heuristic that knows nothing. FAKE_LT_ORDER: "backwards" for a heuristic that prefers other algorithms.
#include "library.h"

enum { OK = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, COMPUTE_32F_FAST_TF32 = 77 };

struct Description {
    int compute = 0, scale = 0, transposes_a = 0, transposes_b = 0;
    uint32_t epilogue = 1;
    const void* bias = nullptr;  // of the type of D
};
struct Matrix {
    int type = 0;
    uint64_t rows = 0, columns = 0;
    int64_t ld = 0;
};
struct Preference {
    uint64_t workspace = 0;
    uint32_t reductions = 7, align[4] = {256, 256, 256, 256};
};
struct Algorithm {
    uint64_t magic, id, reduction, workspace, align, backwards, unused[2];
};
struct Found {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};
static_assert(sizeof(Algorithm) == 64 && sizeof(Found) == 96);
static const uint64_t MAGIC = 0xa190;

// In the order of the heuristic's preference.
static const Algorithm ALGORITHMS[] = {
    {MAGIC, 1, 1, 0, 4, 0, {}},          // adds to the result as parts come: not the same bits every time
    {MAGIC, 2, 2, 48 << 20, 4, 0, {}},   // needs more workspace than it is given
    {MAGIC, 3, 0, 0, 256, 0, {}},        // needs matrices at multiples of 256 bytes
    {MAGIC, 4, 2, 1 << 20, 16, 0, {}},   // adds parts in the workspace
    {MAGIC, 5, 0, 0, 16, 1, {}},
    {MAGIC, 6, 0, 0, 2, 1, {}},
};

struct Handle {
    int device;
};
static Living<Handle> handles;
static Living<Description> descriptions;
static Living<Matrix> matrices;
static Living<Preference> preferences;

extern "C" size_t cublasLtGetVersion() { return strtoull(setting("FAKE_LT_VERSION", "130100"), nullptr, 10); }
extern "C" const char* cublasLtGetStatusString(int status) {
    return status == NOT_SUPPORTED ? "not supported" : status == NOT_INITIALIZED ? "not initialized" : "failed";
}
API cublasLtCreate(void** handle) {
    return asked("FAKE_LT_FAILS", "create") ? int(NOT_INITIALIZED) : handles.make(handle);
}
API cublasLtDestroy(void* handle) { return handles.destroy(handle); }

API cublasLtMatmulDescCreate(void** to, int compute, int scale) {
    MUST((compute == COMPUTE_32F || compute == COMPUTE_32F_FAST_TF32) && scale == R_32F);
    descriptions.make(to);
    Description& made = descriptions.at(*to);
    made.compute = compute;
    made.scale = scale;
    return OK;
}
API cublasLtMatmulDescDestroy(void* handle) { return descriptions.destroy(handle); }
API cublasLtMatmulDescSetAttribute(void* handle, int attribute, const void* value, size_t bytes) {
    Description& to = descriptions.at(handle);
    const auto take = [&](auto& field) {
        MUST(bytes == sizeof field);
        memcpy(&field, value, bytes);
    };
    switch (attribute) {
    case 3: take(to.transposes_a); break;
    case 4: take(to.transposes_b); break;
    case 7: take(to.epilogue); break;
    case 8: take(to.bias); break;
    default: MUST(!"an attribute that is known here");
    }
    return OK;
}
API cublasLtMatrixLayoutCreate(void** to, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    MUST((type == R_32F || type == R_16BF) && rows > 0 && columns > 0 && ld >= int64_t(rows));
    matrices.make(to);
    matrices.at(*to) = {type, rows, columns, ld};
    return OK;
}
API cublasLtMatrixLayoutDestroy(void* handle) { return matrices.destroy(handle); }
API cublasLtMatmulPreferenceCreate(void** to) { return preferences.make(to); }
API cublasLtMatmulPreferenceDestroy(void* handle) { return preferences.destroy(handle); }
API cublasLtMatmulPreferenceSetAttribute(void* handle, int attribute, const void* value, size_t bytes) {
    Preference& to = preferences.at(handle);
    const auto take = [&](auto& field) {
        MUST(bytes == sizeof field);
        memcpy(&field, value, bytes);
    };
    MUST(attribute == 1 || attribute == 3 || (attribute >= 5 && attribute <= 8));
    if (attribute == 1) take(to.workspace);
    else if (attribute == 3) take(to.reductions);
    else take(to.align[attribute - 5]);
    return OK;
}

// A product whose descriptors fit together: D (m, n) = op(A) (m, k) op(B) (k, n) + bias (m).
struct Product {
    Description what;
    Matrix a, b, d;
    size_t m, n, k;
    Element element, result;
};
static Product read(void* what, void* a, void* b, void* c, void* d) {
    Product p = {descriptions.at(what), matrices.at(a), matrices.at(b), matrices.at(d)};
    const Matrix& other = matrices.at(c);
    MUST(other.type == p.d.type && other.rows == p.d.rows && other.columns == p.d.columns && other.ld == p.d.ld);
    MUST(p.a.type == p.b.type);
    MUST(p.a.type == R_16BF || p.d.type == R_32F);
    MUST(p.what.compute == COMPUTE_32F || p.a.type == R_32F);
    p.m = p.what.transposes_a ? p.a.columns : p.a.rows;
    p.k = p.what.transposes_a ? p.a.rows : p.a.columns;
    p.n = p.what.transposes_b ? p.b.rows : p.b.columns;
    MUST(p.k == (p.what.transposes_b ? p.b.columns : p.b.rows));
    MUST(p.d.rows == p.m && p.d.columns == p.n);
    const uint32_t known = p.what.epilogue;
    MUST(known == 1 || known == 2 || known == 4 || known == 6);
    MUST(!(known & 4) == !p.what.bias);
    p.element = p.a.type == R_16BF ? BF16 : p.what.compute == COMPUTE_32F ? F32 : TF32;
    p.result = p.d.type == R_16BF ? BF16 : F32;
    return p;
}

API cublasLtMatmulAlgoGetHeuristic(void* handle, void* what, void* a, void* b, void* c, void* d, void* preference,
                                   int most, Found* found, int* count) {
    handles.at(handle);
    read(what, a, b, c, d);
    const Preference& wanted = preferences.at(preference);
    *count = 0;
    if (asked("FAKE_LT_FAILS", "refuses")) return NOT_SUPPORTED;
    const int known = sizeof ALGORITHMS / sizeof *ALGORITHMS;
    for (int i = 0; i < known && *count < most; ++i) {
        const Algorithm& one = ALGORITHMS[asked("FAKE_LT_ORDER", "backwards") ? known - 1 - i : i];
        bool fits = one.workspace <= wanted.workspace && (one.reduction == 0 || (wanted.reductions & one.reduction));
        for (uint32_t align : wanted.align) fits &= align >= one.align;
        if (fits) found[(*count)++] = {one, size_t(one.workspace), OK, 1.0f, {}};
    }
    return *count ? OK : NOT_SUPPORTED;
}
API cublasLtMatmulAlgoCheck(void* handle, void* what, void* a, void* b, void* c, void* d, const Algorithm* algorithm,
                            Found* found) {
    handles.at(handle);
    read(what, a, b, c, d);
    if (algorithm->magic != MAGIC) return INVALID_VALUE;
    found->workspace = algorithm->workspace;
    return OK;
}
API cublasLtMatmulAlgoConfigGetAttribute(const Algorithm* algorithm, int attribute, void* to, size_t bytes,
                                         size_t* written) {
    MUST(algorithm->magic == MAGIC && attribute == 3 && bytes == 4);
    const uint32_t value = uint32_t(algorithm->reduction);
    memcpy(to, &value, *written = 4);
    return OK;
}

static bool aligned(const void* address, size_t to) { return reinterpret_cast<uint64_t>(address) % to == 0; }

API cublasLtMatmul(void* handle, void* what, const float* alpha, const void* a, void* a_layout, const void* b,
                   void* b_layout, const float* beta, const void* c, void* c_layout, void* d, void* d_layout,
                   const Algorithm* chosen, void* workspace, size_t bytes, void* stream) {
    handles.at(handle);
    const Product p = read(what, a_layout, b_layout, c_layout, d_layout);
    const Algorithm algorithm = *chosen;
    MUST(algorithm.magic == MAGIC && *alpha == 1.0f && *beta == 0.0f && c == d);
    MUST(algorithm.workspace <= bytes && aligned(workspace, 256) && holds(workspace, bytes));
    MUST(aligned(a, algorithm.align) && aligned(b, algorithm.align) && aligned(d, algorithm.align));
    MUST(holds(a, p.a.ld * p.a.columns * size_of(p.element)) && holds(b, p.b.ld * p.b.columns * size_of(p.element)));
    MUST(holds(d, p.d.ld * p.d.columns * size_of(p.result)) && (!p.what.bias || holds(p.what.bias, p.m * size_of(p.result))));
    if (asked("FAKE_LT_FAILS", "matmul")) return EXECUTION_FAILED;
    return issue(stream, [=] {
        // Whatever lay there is gone.
        memset(workspace, 0xff, algorithm.workspace);
        float* parts = static_cast<float*>(workspace);
        for (size_t column = 0; column < p.n; ++column)
            for (size_t row = 0; row < p.m; ++row) {
                const auto sum = [&](size_t begin, size_t end) {
                    float total = 0;
                    for (size_t i = begin; i < end; ++i) {
                        const size_t k = term(i, p.k, algorithm.backwards);
                        const size_t from_a = p.what.transposes_a ? row * p.a.ld + k : k * p.a.ld + row;
                        const size_t from_b = p.what.transposes_b ? k * p.b.ld + column : column * p.b.ld + k;
                        total += load(a, from_a, p.element) * load(b, from_b, p.element);
                    }
                    return total;
                };
                float total;
                if (algorithm.reduction) {
                    parts[0] = sum(0, p.k / 2);
                    parts[1] = sum(p.k / 2, p.k);
                    total = parts[0] + parts[1];
                } else {
                    total = sum(0, p.k);
                }
                if (p.what.bias) total += load(p.what.bias, row, p.result);
                if ((p.what.epilogue & 2) && !(total > 0)) total = 0;
                store(d, column * p.d.ld + row, total, p.result);
            }
    });
}
