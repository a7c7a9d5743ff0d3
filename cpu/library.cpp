// What concerns the library as a whole: the texts of the error codes.
#include "kernels.h"

extern "C" const char* error_text(int code) {
    switch (code) {
        case PARLOR_OK: return "done";
        case PARLOR_ERROR_SIZE: return "a size, stride or count is negative, zero or too large";
        case PARLOR_ERROR_POINTER: return "a pointer is null or not aligned";
        case PARLOR_ERROR_DTYPE: return "a dtype that this function does not take";
        case PARLOR_ERROR_INDEX: return "a token id, position, slot or page lies outside its table";
        case PARLOR_ERROR_ISA: return "this machine has no such instruction set";
        case PARLOR_ERROR_MEMORY: return "scratch memory or threads could not be had";
        case PARLOR_ERROR_VALUE: return "an argument lies outside its range";
        case PARLOR_ERROR_DRIVER: return "the GPU driver is missing or too old";
        default: return "unknown error";
    }
}
