/* Loop devices that detach themselves when the last who has them open, or
 * mounted, lets go of them: none is left, however a program ended. */
#ifndef POWER_LOOP_H
#define POWER_LOOP_H

enum { POWER_LOOP_NAME = 32 };

/* A loop device on FILE, opened; its name goes to NAME.  Negative, with errno:
 * there is none. */
int power_attach(int file, char name[POWER_LOOP_NAME]);

#endif
