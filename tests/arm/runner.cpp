// The kernels as a program for 64-bit ARM: Python (__init__.py) writes calls to its input and shares a file as memory.
//
// A call is a function's place in functions.inc, the number of its arguments, and those as words of 64 bits, each with
// a flag: 1 for a float's bits. ARM's calling convention passes the first eight of either kind in registers and the rest on
// the stack in order, 8 bytes each (Linux; Apple packs them), so one type of function can stand for all of them.
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

#include "kernels.h"

namespace {

constexpr int kRegisters = 8, kStacked = 24;

using W = int64_t;
using Any = W (*)(W, W, W, W, W, W, W, W, double, double, double, double, double, double, double, double, W, W, W, W,
                  W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W, W);

#pragma GCC diagnostic ignored "-Wcast-function-type"  // what this is about
const Any kFunctions[] = {
#include "functions.inc"
};

bool read_words(int64_t* words, size_t count) { return std::fread(words, sizeof *words, count, stdin) == count; }

int64_t call(Any function, const int64_t* words, int64_t count) {
    int64_t general[kRegisters] = {}, stacked[kStacked] = {};
    double floats[kRegisters] = {};
    int num_general = 0, num_floats = 0, num_stacked = 0;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t value = words[2 * i + 1];
        if (words[2 * i] && num_floats < kRegisters) std::memcpy(floats + num_floats++, &value, sizeof value);
        else if (!words[2 * i] && num_general < kRegisters) general[num_general++] = value;
        else stacked[num_stacked++] = value;
    }
    const int64_t *const g = general, *const s = stacked;
    const double* const f = floats;
    return function(g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7], f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7],
                    s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], s[11], s[12], s[13], s[14],
                    s[15], s[16], s[17], s[18], s[19], s[20], s[21], s[22], s[23]);
}

}  // namespace

int main(int, char** arguments) {
    std::FILE* const file = std::fopen(arguments[1], "r+");
    struct stat about;
    if (!file || fstat(fileno(file), &about)) return 1;
    void* const memory = mmap(nullptr, about.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(file), 0);
    if (memory == MAP_FAILED) return 1;
    int64_t answer = reinterpret_cast<int64_t>(memory);
    for (int64_t head[2], words[2 * (2 * kRegisters + kStacked)];;) {
        std::fwrite(&answer, sizeof answer, 1, stdout);
        std::fflush(stdout);
        if (!read_words(head, 2) || head[1] > 2 * kRegisters + kStacked || !read_words(words, 2 * head[1])) return 0;
        answer = call(kFunctions[head[0]], words, head[1]);
    }
}
