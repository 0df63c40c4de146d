// What the processes of the stand-in NCCL (libnccl.cpp) send each other: calls and messages, over sockets that never
// block.
#pragma once

#include "library.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <utility>
#include <vector>

enum Result {
    SUCCESS = 0,
    UNHANDLED_CUDA_ERROR = 1,
    SYSTEM_ERROR = 2,
    INTERNAL_ERROR = 3,
    INVALID_ARGUMENT = 4,
    INVALID_USAGE = 5,
    REMOTE_ERROR = 6,
    IN_PROGRESS = 7
};
static const char* const GONE = "remote process has ended or there is a network error";

enum What : int32_t { ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, SEND, RECV };
static const char* const NAMES[] = {"AllReduce", "ReduceScatter", "AllGather", "Broadcast", "Send", "Recv"};
enum Type : int32_t { INT8 = 0, UINT8 = 1, FLOAT32 = 7, FLOAT64 = 8, BFLOAT16 = 9, TYPES = 12 };

static const char* name_of(int type) {
    if (type == FLOAT32 || type == FLOAT64) return type == FLOAT32 ? "float32" : "float64";
    return type == BFLOAT16 ? "bfloat16" : type == INT8 ? "int8" : "uint8";
}
static size_t width(int type) { return type == FLOAT64 ? 8 : type == FLOAT32 ? 4 : type == BFLOAT16 ? 2 : 1; }

// What one rank calls; `peer` is the root of a broadcast, and the other rank of a send or receive.
struct Part {
    int32_t what, type, op, peer;
    uint64_t count;

    bool collective() const { return what < SEND; }
    // The elements that a rank of n reads and writes.
    uint64_t read(int rank, int n) const {
        if (what == RECV || (what == BROADCAST && rank != peer)) return 0;
        return what == REDUCE_SCATTER ? n * count : count;
    }
    uint64_t written(int n) const { return what == SEND ? 0 : what == ALL_GATHER ? n * count : count; }
    bool same(const Part& other) const {
        return what == other.what && type == other.type && op == other.op && peer == other.peer && count == other.count;
    }
    std::string text() const {
        std::string said = std::string(NAMES[what]) + " of " + std::to_string(count) + " " + name_of(type);
        if (what == BROADCAST || what == RECV) said += " from rank " + std::to_string(peer);
        return what == SEND ? said + " to rank " + std::to_string(peer) : said;
    }
};

// HELLO, OPERATION and LEAVE go to the hub; the others come from it. A rank leaves when it destroys its communicator.
enum Kind : uint32_t { HELLO, OPERATION, LEAVE, WELCOME, RESULT, FAILED, LEFT, FAREWELL };
struct Head {
    uint32_t kind;
    int32_t value;    // a rank, a number of parts or an error
    uint64_t number;  // of a rank's operation; the magic of a hello
    uint64_t bytes;
};
struct Message : Head {
    std::string body;
};
struct Hello {
    int32_t size;
    char gpu[256], bus[32];
};

// An end of a connection.
struct Pipe {
    int file = -1;
    std::string out, in;
    size_t sent = 0, taken = 0;

    void put(Kind kind, int32_t value, uint64_t number, const std::string& body = "") {
        const Head head = {kind, value, number, body.size()};
        out.append(reinterpret_cast<const char*>(&head), sizeof head);
        out += body;
    }
    // False when the other end is gone.
    bool flush() {
        while (sent < out.size()) {
            const ssize_t bytes = ::send(file, out.data() + sent, out.size() - sent, MSG_NOSIGNAL);
            if (bytes < 0) return errno == EAGAIN || errno == EINTR;
            sent += bytes;
        }
        out.clear();
        sent = 0;
        return true;
    }
    bool fill() {
        static thread_local std::vector<char> some(1 << 20);
        for (;;) {
            const ssize_t bytes = recv(file, some.data(), some.size(), 0);
            if (bytes == 0) return false;
            if (bytes < 0 && errno == EINTR) continue;
            if (bytes < 0) return errno == EAGAIN;
            in.append(some.data(), bytes);
        }
    }
    bool next(Message& message) {
        Head& head = message;
        if (in.size() - taken < sizeof head) return false;
        memcpy(&head, in.data() + taken, sizeof head);
        if (in.size() - taken < sizeof head + head.bytes) return false;
        message.body = in.substr(taken + sizeof head, head.bytes);
        taken += sizeof head + head.bytes;
        if (taken == in.size() || taken > 1 << 20) in.erase(0, taken), taken = 0;
        return true;
    }
    short wanted() const { return out.empty() ? POLLIN : POLLIN | POLLOUT; }
};

// An abstract socket, which vanishes with its process.
static socklen_t address_of(const std::string& name, sockaddr_un& to) {
    to = {};
    to.sun_family = AF_UNIX;
    MUST(name.size() < sizeof to.sun_path - 1);
    memcpy(to.sun_path + 1, name.data(), name.size());
    return socklen_t(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

// The program's signals are for its own threads.
static void in_background(std::function<void()> work) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    std::thread(std::move(work)).detach();
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}
