/* Some tests use Promise.withResolvers(), which Node.js has from 22 on. */
type Resolvers = {
  promise: Promise<unknown>;
  resolve: (value?: unknown) => void;
  reject: (reason?: unknown) => void;
};

const promises = Promise as unknown as { withResolvers?: () => Resolvers };

promises.withResolvers ??= () => {
  const made = {} as Resolvers;
  made.promise = new Promise((resolve, reject) => {
    made.resolve = resolve;
    made.reject = reject;
  });
  return made;
};
