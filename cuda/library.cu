// What concerns the library as a whole: the texts of the error codes, and the controls that only the CPU has.
#include "launch.cuh"

using namespace parlor;

extern "C" const char* error_text(int code) {
    switch (code) {
        case PARLOR_OK: return "done";
        case PARLOR_ERROR_SIZE: return "a size, stride or count is negative, zero or too large";
        case PARLOR_ERROR_POINTER: return "a pointer is null or not aligned";
        case PARLOR_ERROR_DTYPE: return "a dtype that this function does not take";
        case PARLOR_ERROR_INDEX: return "a token id, position, slot or page lies outside its table";
        case PARLOR_ERROR_ISA: return "this library has no such instruction set";
        case PARLOR_ERROR_MEMORY: return "the workspace or a multiprocessor's memory is too small";
        case PARLOR_ERROR_VALUE: return "an argument lies outside its range";
        case PARLOR_ERROR_DRIVER: return "the GPU driver is missing or too old";
        default: break;
    }
    return code > PARLOR_ERROR_CUDA ? cudaGetErrorString(static_cast<cudaError_t>(code - PARLOR_ERROR_CUDA)) : "unknown error";
}

extern "C" int supported_isas(void) { return 1 << PARLOR_ISA_PLAIN; }
extern "C" int current_isa(void) { return PARLOR_ISA_PLAIN; }
extern "C" int force_isa(int isa) { return isa == -1 || isa == PARLOR_ISA_PLAIN ? PARLOR_OK : PARLOR_ERROR_ISA; }
extern "C" int set_threads(int num_threads) { return num_threads == 1 ? PARLOR_OK : PARLOR_ERROR_SIZE; }
extern "C" int get_threads(void) { return 1; }
extern "C" int advise_huge_pages(void* memory, int64_t bytes) {
    if (!memory) return PARLOR_ERROR_POINTER;
    return bytes < 0 ? PARLOR_ERROR_SIZE : PARLOR_OK;
}
