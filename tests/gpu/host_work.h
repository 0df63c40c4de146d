// Part of the stand-in driver, for the stand-ins of libraries (library.h): work on the host in a stream's order, and
// whether a range lies in memory of the current device.
API cuLaunchHostFunc(void* stream, void (*work)(void*), void* data) {
    LOCK;
    return issue(stream, {[=] {
                     work(data);
                     return OK;
                 }});
}
extern "C" bool fakeCudaHolds(uint64_t address, size_t bytes) {
    LOCK;
    const auto* found = holder(address, bytes);
    return current && found && found->second.second == current->device;
}
