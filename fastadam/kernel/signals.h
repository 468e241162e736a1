/* What the system does at a signal, read and put back around Python's signal.signal(), which sets it anew:
   another library's handler, or that of faulthandler, and siginterrupt() would be lost. */
#ifndef FASTADAM_SIGNALS_H
#define FASTADAM_SIGNALS_H

#include <signal.h>
#include <stddef.h>

#ifdef _WIN32 /* has no other way to set it than Python's */
typedef int disposition_t;
static inline void disposition_read(int number, disposition_t *kept) { (void)number, (void)kept; }
static inline void disposition_restore(int number, const disposition_t *kept) { (void)number, (void)kept; }
#else
typedef struct sigaction disposition_t;
static inline void disposition_read(int number, disposition_t *kept) { sigaction(number, NULL, kept); }
static inline void disposition_restore(int number, const disposition_t *kept) { sigaction(number, kept, NULL); }
#endif

#endif
