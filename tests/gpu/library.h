// What the stand-ins of NVIDIA's libraries share: the stand-in driver's streams and memory, element types, and an end
// with a sentence when a call breaks the contract of the real library.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>

#define API extern "C" int

static const char* setting(const char* name, const char* otherwise) {
    const char* value = getenv(name);
    return value ? value : otherwise;
}
static bool asked(const char* name, const char* value) { return strcmp(setting(name, ""), value) == 0; }

// Returns that something holds, or ends the process: a real library would refuse, or read wrong memory.
#define MUST(condition)                                                                        \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s: not %s\n", __FILE__, __LINE__, __func__, #condition); \
            abort();                                                                           \
        }                                                                                      \
    } while (0)

template <typename F> static F driver(const char* name) {
    static void* library = dlopen("libcuda.so", RTLD_NOW);
    MUST(library);
    F found = reinterpret_cast<F>(dlsym(library, name));
    MUST(found);
    return found;
}

// Whether a range lies in memory of the current device.
static bool holds(const void* address, size_t bytes) {
    static const auto call = driver<bool (*)(uint64_t, size_t)>("fakeCudaHolds");
    return call(reinterpret_cast<uint64_t>(address), bytes);
}

// Runs when the stream comes to it, once for each time that a graph is replayed.
static int issue(void* stream, std::function<void()> work) {
    static const auto call = driver<int (*)(void*, void (*)(void*), void*)>("cuLaunchHostFunc");
    auto* kept = new std::function<void()>(std::move(work));
    return call(stream, [](void* work) { (*static_cast<std::function<void()>*>(work))(); }, kept);
}

enum Element { F32, TF32, BF16 };

static size_t size_of(Element element) { return element == BF16 ? 2 : 4; }
static float of_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}
static float load(const void* from, size_t i, Element element) {
    if (element == BF16) return of_bits(uint32_t(static_cast<const uint16_t*>(from)[i]) << 16);
    const float value = static_cast<const float*>(from)[i];
    return element == TF32 ? of_bits((bits_of(value) + 0x1000) & ~0x1fffu) : value;
}
static void store(void* to, size_t i, float value, Element element) {
    if (element != BF16) {
        static_cast<float*>(to)[i] = value;
        return;
    }
    const uint32_t bits = bits_of(value);
    static_cast<uint16_t*>(to)[i] = uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Objects that the caller makes and destroys.
template <typename T> struct Living {
    std::set<void*> all;
    int make(void** to) {
        all.insert(*to = new T);
        return 0;
    }
    T& at(void* handle) {
        MUST(all.count(handle));
        return *static_cast<T*>(handle);
    }
    int destroy(void* handle) {
        MUST(all.erase(handle));
        delete static_cast<T*>(handle);
        return 0;
    }
};

// The order in which a sum over n terms is formed: algorithms differ in it, so that their bits differ.
static size_t term(size_t i, size_t n, bool backwards) { return backwards ? n - 1 - i : i; }
