// Part of the stand-in driver, for the stand-ins of libraries (library.h): work on the host in the order of a stream,
// whether a range lies in memory of a device, and which device and capture a stream belongs to.
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
extern "C" bool fakeCudaHoldsOn(int device, uint64_t address, size_t bytes) {
    LOCK;
    const auto* found = holder(address, bytes);
    return found && found->second.second == device;
}
API fakeCudaStream(Stream* stream, int* device, const void** capture) {
    LOCK;
    if (!streams.count(stream)) return INVALID_HANDLE;
    *device = stream->device;
    *capture = stream->capture;
    return OK;
}
// Work that other processes take part in: `poll` is called until it says that all is done, with a state that is null
// for the first call of each run. `release` is called when the work, and all graphs that hold it, are gone.
API fakeCudaAwait(void* stream, bool (*poll)(void* data, void** state), void* data, void (*release)(void*)) {
    LOCK;
    const std::shared_ptr<void> kept(data, release);
    Command command;
    command.ready = [=, state = static_cast<void*>(nullptr)]() mutable { return poll(kept.get(), &state); };
    return issue(stream, std::move(command));
}
