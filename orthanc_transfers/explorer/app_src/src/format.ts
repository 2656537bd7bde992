/** Numbers, times and names for people, in their language. */
import { language, t } from './i18n'

const UNITS = ['B', 'KB', 'MB', 'GB', 'TB']

export function number(value: number, digits = 0): string {
  return new Intl.NumberFormat(language.value, { maximumFractionDigits: digits }).format(value)
}

export function bytes(value: number | null | undefined): string {
  let size = value ?? 0
  let unit = 0
  while (size >= 1000 && unit < UNITS.length - 1) {
    size /= 1000
    unit++
  }
  return `${number(size, unit && size < 100 ? 1 : 0)} ${UNITS[unit]}`
}

export const speed = (value: number | null | undefined): string => `${bytes(value)}/s`

export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 60) return t('time.seconds', { n: whole })
  if (whole < 3600) return t('time.minutes', { n: Math.round(whole / 60) })
  if (whole < 48 * 3600) return t('time.hours', { n: number(whole / 3600, 1) })
  return t('time.days', { n: Math.round(whole / 86400) })
}

/** Orthanc's times are in UTC: 20261127T102030.123456 */
export function date(text: string | null | undefined): Date | null {
  const found = /^(\d{4})-?(\d\d)-?(\d\d)T(\d\d):?(\d\d):?(\d\d)/.exec(text ?? '')
  if (!found) return null
  const [year, month, day, hour, minute, second] = found.slice(1).map(Number)
  return new Date(Date.UTC(year, month - 1, day, hour, minute, second))
}

export function moment(text: string | null | undefined): string {
  const when = date(text)
  if (!when) return '–'
  const today = when.toDateString() === new Date().toDateString()
  return new Intl.DateTimeFormat(language.value, today ? { timeStyle: 'medium' } : { dateStyle: 'medium', timeStyle: 'short' }).format(when)
}

/** DICOM's date: 20260101 */
export function dicomDate(text: string | null | undefined): string {
  const found = /^(\d{4})(\d\d)(\d\d)$/.exec(text ?? '')
  if (!found) return text ?? ''
  const when = new Date(Date.UTC(+found[1], +found[2] - 1, +found[3]))
  return new Intl.DateTimeFormat(language.value, { dateStyle: 'medium', timeZone: 'UTC' }).format(when)
}

/** DICOM's name: Doe^Jane */
export function personName(text: string | null | undefined): string {
  const [family, ...given] = (text ?? '').split('=')[0].split('^')
  const rest = given.filter(Boolean).join(' ')
  return rest ? `${family}, ${rest}` : family
}
