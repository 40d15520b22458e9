/** Actors as the audit names them. */

export const isOperator = (actor: string): boolean => actor.startsWith('operator:')

/** Whether the actor acts for a customer, and isn't that customer. */
export const isManager = (actor: string): boolean => isOperator(actor) || isService(actor)

/** Returns the owner of a turn. An operator or a service doesn't wait behind the customer's own requests. */
export const turnOwner = (actor: string, customerId: string): string =>
  isManager(actor) ? actor : customerId

export const isService = (actor: string): boolean => actor.startsWith('service:')
