/* In place of the system's, which WebAssembly has not: includes of cmocka want
 * one to be there, and its stand-in jumps nowhere. */
