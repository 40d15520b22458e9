import type { Context } from 'hono'
import { matchedRoutes } from 'hono/route'

/** The route that answers the request. Undefined if only middleware matches. */
export const matchedRoute = (c: Pick<Context, 'req'>) =>
  matchedRoutes(c as Context).findLast(({ method }) => method !== 'ALL')

/** The method and pattern of the route, as in RIGHT_OF_ROUTE. HEAD is answered by the route of GET. */
export function routeName(c: Pick<Context, 'req'>): string {
  const route = matchedRoute(c)
  return route === undefined ? '' : `${route.method} ${route.path}`
}
