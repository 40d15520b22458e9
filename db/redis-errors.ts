/** What Redis could not do. Nothing that a caller is told: whoever asks it can do without. Holds no key and no value. */
export class RedisFailure extends Error {
  override readonly name = 'RedisFailure'
}
