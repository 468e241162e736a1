/* Reads and restores the system's disposition of a signal. Python's signal.signal() replaces it: another library's
   handler, that of faulthandler, and the effect of siginterrupt() would be lost. */
#ifndef FASTADAM_SIGNALS_H
#define FASTADAM_SIGNALS_H

#include <signal.h>

#ifdef _WIN32 /* nothing to do: there only Python sets handlers */
typedef int disposition_t;
static inline void disposition_read(int number, disposition_t *kept) { (void)number, (void)kept; }
static inline void disposition_restore(int number, const disposition_t *kept) { (void)number, (void)kept; }
#else
typedef struct sigaction disposition_t;
static inline void disposition_read(int number, disposition_t *kept) { sigaction(number, NULL, kept); }
static inline void disposition_restore(int number, const disposition_t *kept) { sigaction(number, kept, NULL); }
#endif

#endif
