// The threads that share each operation: made once, spinning briefly between operations, then asleep.
//
//   team().run([&](int part, int num_parts) { ... });              every thread calls it once
//   team().parallel_for(n, [&](int64_t begin, int64_t end, int part) { ... });    static partition of 0..n
//
// Which thread does what depends only on (n, team size): no stealing. Exceptions must not leave a body.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace parlor {

class ThreadTeam {
  public:
    using Body = void (*)(void* context, int part, int num_parts);

    int size() const;
    void set_size(int num_threads);   // not while an operation runs

    // body(part, num_parts) on every thread at once; returns when all are done. From inside another body it is
    // body(0, 1) on the calling thread alone.
    template <class Function>
    void run(Function&& body) {
        using Plain = std::remove_reference_t<Function>;
        run_body([](void* context, int part, int num_parts) { (*static_cast<Plain*>(context))(part, num_parts); },
                 const_cast<void*>(static_cast<const void*>(&body)));
    }

    // body(begin, end, part) over contiguous shares of 0..n, their borders multiples of `grain`. Parts without
    // a share are not called; a single share is done by the caller and wakes nobody.
    template <class Function>
    void parallel_for(int64_t n, Function&& body, int64_t grain = 1) {
        if (n <= 0) return;
        const int64_t blocks = (n + grain - 1) / grain;
        if (blocks == 1) return body(int64_t{0}, n, 0);
        run([&](int part, int num_parts) {
            const int64_t begin = blocks * part / num_parts * grain;
            const int64_t end = part + 1 == num_parts ? n : blocks * (part + 1) / num_parts * grain;
            if (begin < end) body(begin, end, part);
        });
    }

    // Within a body of run(): wait until all parts have come here. Every part must call it equally often.
    void barrier();

    // At least `bytes`, 64-byte aligned, the same memory for every thread, contents undefined; valid until the
    // next scratch() call. nullptr: out of memory. Call it outside of run(). Grows only.
    void* scratch(size_t bytes);

  private:
    void run_body(Body body, void* context);
};

ThreadTeam& team();

}  // namespace parlor
