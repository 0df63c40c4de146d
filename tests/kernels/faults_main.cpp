// Runs one kernel of faults.cu: faults_main KERNEL ORDER. Prints its outputs, or what the emulated device says.
#include "cuda_host.h"
namespace {
#include "faults.cu"
}
EMU_KERNEL(fine)
EMU_KERNEL(missing_barrier)
EMU_KERNEL(unwritten_output)
EMU_KERNEL(unwritten_shared)
EMU_KERNEL(outside_global)
EMU_KERNEL(outside_shared)
EMU_KERNEL(outside_dynamic)
EMU_KERNEL(different_barriers)
EMU_KERNEL(half_a_warp)
EMU_KERNEL(exited_lane)
EMU_KERNEL(exited_at_barrier)

#include <cstdio>
#include <cstdlib>

extern "C" const void* emu_kernel(const char* name);
extern "C" int emu_launch(const void* kernel, const unsigned* grid, const unsigned* size, size_t dynamic, void** args,
                          uint64_t first, uint64_t count, int order, uint64_t seed, char* error, size_t error_bytes);

int main(int, char** argv) {
    float* x = static_cast<float*>(malloc(64 * sizeof(float)));
    float* y = static_cast<float*>(malloc(64 * sizeof(float)));
    memset(y, 0xff, 64 * sizeof(float));
    for (int i = 0; i < 64; ++i) x[i] = float(i);
    const unsigned grid[] = {1, 1, 1}, size[] = {64, 1, 1};
    void* args[] = {&x, &y};
    char error[1024] = "";
    const void* kernel = emu_kernel(argv[1]);
    if (emu_launch(kernel, grid, size, 64 * sizeof(float), args, 0, 1, atoi(argv[2]), 7, error, sizeof error)) {
        puts(error);
        return 1;
    }
    for (int i = 0; i < 64; ++i) printf("%g ", y[i]);
    free(x);
    free(y);
    return 0;
}
