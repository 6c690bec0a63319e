/*
 * libfastltc: trained liquid networks in real time, for C and C++, without Python.
 *
 *     fastltc_network *network;
 *     fastltc_session *session;
 *     if (fastltc_network_load("model.safetensors", &network) != FASTLTC_OK ||
 *         fastltc_session_new(network, 1, &session) != FASTLTC_OK) {
 *         fprintf(stderr, "%s\n", fastltc_last_error());
 *         return 1;
 *     }
 *     ... at every observation, dt after the last one, in units of fastltc_time_unit(network) ...
 *     fastltc_step(session, x, dt, y);
 *
 * Model files are written by fastltc.export or `fastltc export`. A network does not change and
 * serves any number of threads; a session belongs to one thread at a time. fastltc_step allocates
 * nothing, takes no lock and calls nothing of the operating system. Which instruction set runs is
 * chosen once, by the processor or the environment variable FASTLTC_CPU.
 *
 * fastltc.hpp has the same for C++, with destructors and exceptions.
 */
#ifndef FASTLTC_FASTLTC_H
#define FASTLTC_FASTLTC_H

#include <stddef.h>

#if defined(FASTLTC_BUILDING_SHARED) && defined(__GNUC__)
#define FASTLTC_API __attribute__((visibility("default")))
#else
#define FASTLTC_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fastltc_network fastltc_network;
typedef struct fastltc_session fastltc_session;

typedef enum {
  FASTLTC_OK = 0,
  FASTLTC_BAD_ARGUMENT = 1, /* a null pointer, or a number out of its range */
  FASTLTC_BAD_INPUT = 2,    /* an input or a state is NaN or infinite */
  FASTLTC_BAD_DT = 3,       /* a time step is negative, NaN or infinite */
  FASTLTC_BAD_FILE = 4,     /* damaged, of a newer version, or no model file */
  FASTLTC_NO_FILE = 5,      /* it cannot be read */
  FASTLTC_NO_MEMORY = 6,
  FASTLTC_BAD_PROCESSOR = 7 /* FASTLTC_CPU asks for what this processor or library lacks */
} fastltc_status;

/* What went wrong in the last call of this thread that did not return FASTLTC_OK, in words. */
FASTLTC_API const char* fastltc_last_error(void);

/* The version of the library, such as "0.1.0". */
FASTLTC_API const char* fastltc_version(void);

/* The instruction set in use; NULL where FASTLTC_CPU asks for one that is not possible here. */
FASTLTC_API const char* fastltc_instruction_set(void);

/* Reads a model file, and prepares its network. */
FASTLTC_API fastltc_status fastltc_network_load(const char* path, fastltc_network** network);

/* The same from the content of a file, which is not needed afterwards. */
FASTLTC_API fastltc_status fastltc_network_parse(const void* content, size_t size,
                                                 fastltc_network** network);

/* Sessions keep what they need of it. NULL is allowed. */
FASTLTC_API void fastltc_network_free(fastltc_network* network);

FASTLTC_API size_t fastltc_input_size(const fastltc_network* network);
FASTLTC_API size_t fastltc_output_size(const fastltc_network* network);
FASTLTC_API size_t fastltc_state_size(const fastltc_network* network);
/* The seconds that one unit of a time step is. */
FASTLTC_API double fastltc_time_unit(const fastltc_network* network);
/* In UTF-8; NULL where the model has no names or not so many. They live as long as the network. */
FASTLTC_API const char* fastltc_input_name(const fastltc_network* network, size_t index);
FASTLTC_API const char* fastltc_output_name(const fastltc_network* network, size_t index);

/* A number of independent streams, S, from 1 to 2^24, which every call steps together. */
FASTLTC_API fastltc_status fastltc_session_new(const fastltc_network* network, size_t streams,
                                               fastltc_session** session);
FASTLTC_API void fastltc_session_free(fastltc_session* session);

/*
 * One observation of every stream, dt after the last one. x: [S, inputs]; y: [S, outputs], which
 * may be x but not overlap it otherwise. Unless it returns FASTLTC_OK, state and y are as before.
 */
FASTLTC_API fastltc_status fastltc_step(fastltc_session* session, const float* x, float dt,
                                        float* y);
/* The same with a time step for each stream: dt [S]. */
FASTLTC_API fastltc_status fastltc_step_each(fastltc_session* session, const float* x,
                                             const float* dt, float* y);

/* Zeros, where every sequence starts. */
FASTLTC_API fastltc_status fastltc_reset(fastltc_session* session);
/* Zeros in the streams whose entry of which [S] is not 0. */
FASTLTC_API fastltc_status fastltc_reset_streams(fastltc_session* session,
                                                 const unsigned char* which);

/* state: [S, state_size]; of each recurrent layer h and, with mixed memory, c. */
FASTLTC_API fastltc_status fastltc_get_state(const fastltc_session* session, float* state);
FASTLTC_API fastltc_status fastltc_set_state(fastltc_session* session, const float* state);

#ifdef __cplusplus
}
#endif

#endif
