// The hub of one communicator of the stand-in NCCL: a thread of the process that made the communicator's id. All ranks
// connect to it; it compares what they call, computes the results and tells a rank about the loss of another.
#pragma once

#include "nccl_wire.h"

#include <algorithm>
#include <deque>
#include <map>

// Adds a chunk as a ring does, from the rank after the chunk's owner around to the owner, rounded after each addition.
template <typename T, typename Add>
static void ring(const std::vector<std::string>& inputs, size_t begin, size_t end, size_t owner, char* to, Add add) {
    const size_t n = inputs.size();
    const auto at = [&](size_t rank) { return reinterpret_cast<const T*>(inputs[rank % n].data()); };
    for (size_t i = begin; i < end; ++i) {
        T total = at(owner + 1)[i];
        for (size_t k = 2; k <= n; ++k) total = add(total, at(owner + k)[i]);
        memcpy(to + (i - begin) * sizeof(T), &total, sizeof total);
    }
}
static void ring(const std::vector<std::string>& inputs, int type, size_t begin, size_t end, size_t owner, char* to) {
    const auto plain = [](auto a, auto b) { return decltype(a)(a + b); };
    if (type == FLOAT32) return ring<float>(inputs, begin, end, owner, to, plain);
    if (type == FLOAT64) return ring<double>(inputs, begin, end, owner, to, plain);
    if (type != BFLOAT16) return ring<uint8_t>(inputs, begin, end, owner, to, plain);
    ring<uint16_t>(inputs, begin, end, owner, to, [](uint16_t a, uint16_t b) {
        uint16_t sum;
        store(&sum, 0, load(&a, 0, BF16) + load(&b, 0, BF16), BF16);
        return sum;
    });
}

class Hub {
    struct Peer {
        Pipe pipe;
        int rank = -1;
        bool open = true, leaving = false, dismissed = false;
    };
    struct Rank {
        Peer* peer = nullptr;
        Hello hello;
        bool left = false;
        uint64_t collectives = 0;  // that it has called
        uint64_t number = 0;       // of its operation, with what is known of it
        std::vector<Part> parts;
        std::vector<std::string> results;
        std::vector<bool> done;
        bool busy() const { return std::count(done.begin(), done.end(), false) > 0; }
    };
    // A collective: what its first rank called, each rank's input, and the part of its operation that it is.
    struct Slot {
        Part part;
        int first, arrived = 0;
        std::vector<std::string> inputs;
        std::vector<size_t> parts;
    };
    struct Half {
        Part part;
        size_t index;
        std::string sent;
    };

    const int listener;
    const uint64_t magic;
    std::vector<std::unique_ptr<Peer>> peers;
    std::vector<Rank> ranks;
    std::map<uint64_t, Slot> slots;
    std::map<std::pair<int, int>, std::deque<Half>> sends, receives;  // from, to
    int failure = SUCCESS;
    std::string sentence;

    int size() const { return int(ranks.size()); }
    static std::string named(int rank) { return "rank " + std::to_string(rank); }

    // No operation ends from now on, and all ranks hear why.
    void fail(int code, const std::string& text) {
        if (failure) return;
        failure = code;
        sentence = text;
        if (code != REMOTE_ERROR) fprintf(stderr, "fake nccl: %s\n", text.c_str());
        for (auto& peer : peers) peer->pipe.put(FAILED, code, 0, text);
    }

    void greet(Peer& peer, const Message& message) {
        Hello hello;
        if (message.number != magic || message.body.size() != sizeof hello || peer.rank >= 0) {
            peer.open = false;
            return;
        }
        memcpy(&hello, message.body.data(), sizeof hello);
        const int rank = message.value;
        if (failure) return peer.pipe.put(FAILED, failure, 0, sentence);
        if (ranks.empty()) ranks.resize(hello.size);
        if (hello.size != size())
            return fail(INVALID_USAGE, named(rank) + " is one of " + std::to_string(hello.size) +
                                           " ranks, but others are of " + std::to_string(size()));
        if (ranks[rank].peer) return fail(INVALID_USAGE, "two processes are " + named(rank));
        peer.rank = rank;
        ranks[rank].peer = &peer;
        ranks[rank].hello = hello;
        for (const Rank& one : ranks)
            if (!one.peer) return;
        for (int i = 0; i < size(); ++i)
            for (int j = 0; j < i; ++j)
                if (strcmp(ranks[i].hello.gpu, ranks[j].hello.gpu) == 0)
                    return fail(INVALID_USAGE, "Duplicate GPU detected : " + named(i) + " and " + named(j) +
                                                   " both on CUDA device " + ranks[i].hello.bus);
        for (auto& one : peers) one->pipe.put(WELCOME, 0, 0);
    }

    void done(int rank, size_t part, std::string result = "") {
        ranks[rank].results[part] = std::move(result);
        ranks[rank].done[part] = true;
    }

    void collect(int rank, size_t index, std::string input) {
        const Part& part = ranks[rank].parts[index];
        const uint64_t number = ranks[rank].collectives++;
        Slot& slot = slots.try_emplace(number, Slot{part, rank, 0, {}, {}}).first->second;
        if (!slot.part.same(part))
            return fail(INVALID_USAGE, "collective " + std::to_string(number + 1) + " of " + named(rank) + " is " +
                                           part.text() + ", but that of " + named(slot.first) + " is " +
                                           slot.part.text());
        slot.inputs.resize(size());
        slot.parts.resize(size());
        slot.inputs[rank] = std::move(input);
        slot.parts[rank] = index;
        if (++slot.arrived < size()) return;
        const size_t bytes = part.count * width(part.type);
        std::string all;
        if (part.what == ALL_REDUCE) {
            all.resize(bytes);
            const size_t chunk = (part.count + size() - 1) / size();
            for (size_t c = 0; c * chunk < part.count; ++c)
                ring(slot.inputs, part.type, c * chunk, std::min((c + 1) * chunk, size_t(part.count)), c,
                     all.data() + c * chunk * width(part.type));
        }
        if (part.what == ALL_GATHER)
            for (const std::string& one : slot.inputs) all += one;
        if (part.what == BROADCAST) all = slot.inputs[part.peer];
        for (int r = 0; r < size(); ++r) {
            std::string own(part.what == REDUCE_SCATTER ? bytes : 0, '\0');
            if (own.empty()) own = all;
            else ring(slot.inputs, part.type, r * part.count, (r + 1) * part.count, r, own.data());
            done(r, slot.parts[r], std::move(own));
        }
        slots.erase(number);
    }

    void pass(int rank, size_t index, std::string sent) {
        const Part& part = ranks[rank].parts[index];
        const bool sending = part.what == SEND;
        const auto way = sending ? std::make_pair(rank, part.peer) : std::make_pair(part.peer, rank);
        (sending ? sends : receives)[way].push_back({part, index, std::move(sent)});
        auto &from = sends[way], &to = receives[way];
        while (!from.empty() && !to.empty()) {
            const Half send = std::move(from.front()), receive = std::move(to.front());
            from.pop_front();
            to.pop_front();
            if (send.part.count != receive.part.count || send.part.type != receive.part.type)
                return fail(INVALID_USAGE, named(way.first) + " calls " + send.part.text() + ", but " +
                                               named(way.second) + " calls " + receive.part.text());
            done(way.first, send.index);
            done(way.second, receive.index, send.sent);
        }
    }

    void operate(int rank, const Message& message) {
        Rank& one = ranks[rank];
        MUST(!one.busy());
        if (one.left)
            return fail(INVALID_USAGE, named(rank) + " has destroyed its communicator before its operations had ended");
        one.number = message.number;
        one.parts.resize(message.value);
        memcpy(one.parts.data(), message.body.data(), message.value * sizeof(Part));
        one.results.assign(message.value, "");
        one.done.assign(message.value, false);
        size_t at = message.value * sizeof(Part);
        for (size_t i = 0; i < one.parts.size() && !failure; ++i) {
            const size_t bytes = one.parts[i].read(rank, size()) * width(one.parts[i].type);
            std::string input = message.body.substr(at, bytes);
            at += bytes;
            if (one.parts[i].collective()) collect(rank, i, std::move(input));
            else pass(rank, i, std::move(input));
        }
    }

    // Answers the operations that are complete, and finds those that never will be.
    void answer() {
        std::string stuck;
        bool all_stuck = !failure;
        for (int r = 0; r < size() && !failure; ++r) {
            Rank& one = ranks[r];
            all_stuck &= one.busy();
            if (one.done.empty()) continue;
            if (!one.busy()) {
                std::string all;
                for (const std::string& result : one.results) all += result;
                one.peer->pipe.put(RESULT, 0, one.number, all);
                one.done.clear();
                continue;
            }
            bool first = true;
            for (size_t i = 0; i < one.parts.size(); ++i) {
                if (one.done[i]) continue;
                const Part& part = one.parts[i];
                if (first) stuck += (stuck.empty() ? "" : "; ") + named(r) + " calls " + part.text();
                first = false;
                for (int other = 0; other < size(); ++other)
                    if (ranks[other].left && (part.collective() || part.peer == other))
                        return fail(INVALID_USAGE, named(r) + " calls " + part.text() + ", but " + named(other) +
                                                       " has destroyed its communicator");
            }
        }
        if (all_stuck && size()) fail(INVALID_USAGE, "all ranks wait for each other: " + stuck);
    }

    void take(Peer& peer) {
        Message message;
        while (peer.pipe.next(message)) {
            if (message.kind == HELLO) greet(peer, message);
            if (peer.rank < 0) continue;
            if (message.kind == LEAVE) {
                peer.leaving = ranks[peer.rank].left = true;
                for (auto& other : peers)
                    if (other.get() != &peer) other->pipe.put(LEFT, peer.rank, 0);
            }
            if (message.kind == OPERATION && !failure) operate(peer.rank, message);
            if (message.kind != HELLO) answer();
        }
    }

    void accept_all() {
        int file;
        while ((file = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
            peers.push_back(std::make_unique<Peer>());
            peers.back()->pipe.file = file;
        }
    }

public:
    Hub(int listener, uint64_t magic) : listener(listener), magic(magic) {}

    // Until all ranks have come and gone.
    void serve() {
        for (;;) {
            std::vector<pollfd> asked = {{listener, POLLIN, 0}};
            for (auto& peer : peers) asked.push_back({peer->open ? peer->pipe.file : -1, peer->pipe.wanted(), 0});
            poll(asked.data(), asked.size(), -1);
            for (size_t i = 0; i < peers.size(); ++i) {
                Peer& peer = *peers[i];
                if (!peer.open) continue;
                const bool here = peer.pipe.fill();
                take(peer);
                if (here && peer.open && peer.pipe.flush()) continue;
                peer.open = false;
                close(peer.pipe.file);
                if (peer.rank >= 0 && !peer.leaving) fail(REMOTE_ERROR, GONE);
            }
            accept_all();
            bool flushed = true, open = false, complete = !ranks.empty();
            for (auto& peer : peers) {
                flushed &= !peer->open || peer->pipe.out.empty();
                open |= peer->open;
            }
            for (const Rank& rank : ranks) complete &= rank.peer != nullptr;
            // A rank may end its process after this, and the hub with it.
            for (auto& peer : peers)
                if (flushed && peer->open && peer->leaving && !peer->dismissed) {
                    peer->dismissed = true;
                    peer->pipe.put(FAREWELL, 0, 0);
                }
            if (complete && !open) break;
        }
        close(listener);
    }
};
