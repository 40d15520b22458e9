/**
 * Calls to Redis throw this. It holds no key and no value. It has its own file because the logger uses it, and a server without
 * Redis doesn't load the driver.
 */
export class RedisFailure extends Error {
  override readonly name = 'RedisFailure'
}
