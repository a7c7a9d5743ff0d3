// Device memory that the kernels need between their own launches: that of a cuda_queue.
//
// Whatever uses it runs on one stream at a time (the engine's), so one launch after the other may have all of it. It
// begins with tickets, which are zero whenever no kernel runs: the last block to take one puts it back.
#pragma once

#include "launch.cuh"

namespace parlor {

constexpr int64_t kTickets = 65536;

// Memory handed out piece by piece.
class Scratch {
public:
    Scratch(char* begin, char* end) : next_(begin), end_(end) {}

    // Null where less is left.
    template <class T>
    T* take(int64_t count) {
        constexpr int64_t kAlignment = 256;
        const int64_t bytes = divide_up(count * static_cast<int64_t>(sizeof(T)), kAlignment) * kAlignment;
        if (!next_ || bytes > end_ - next_) return nullptr;
        T* const piece = reinterpret_cast<T*>(next_);
        next_ += bytes;
        return piece;
    }

private:
    char* next_;
    char* end_;
};

struct Workspace {
    char* memory = nullptr;
    int64_t bytes = 0;

    static Workspace of(const void* stream) {
        const auto* const queue = static_cast<const cuda_queue*>(stream);
        constexpr int64_t kFewest = kTickets * static_cast<int64_t>(sizeof(unsigned));
        if (!queue || !is_aligned(queue->workspace, 256) || queue->workspace_bytes < kFewest) return {};
        return {static_cast<char*>(queue->workspace), queue->workspace_bytes};
    }
    unsigned* tickets() const { return reinterpret_cast<unsigned*>(memory); }
    Scratch scratch() const {
        return memory ? Scratch(memory + kTickets * sizeof(unsigned), memory + bytes) : Scratch(nullptr, nullptr);
    }
};

}  // namespace parlor
